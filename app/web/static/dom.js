// DOM helpers. All content is set as text, and only where it differs from what is shown.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

export function setText(node, value) {
  const text = String(value ?? "");
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

export function element(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = String(text ?? "");
  return node;
}

export function drawShape(parent, name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

/**
 * Makes `parent` have one child per item, in order. A child whose key is already present is updated, not replaced.
 *
 * @param {Element} parent
 * @param {any[]} items
 * @param {(item: any, index: number) => string | number} keyOf - the item's unique key
 * @param {(item: any) => HTMLElement} create
 * @param {(node: HTMLElement, item: any) => void} [update] - also called for new children
 */
export function reconcile(parent, items, keyOf, create, update = () => {}) {
  const existing = new Map(Array.from(parent.children, (node) => [node.dataset.key, node]));
  items.forEach((item, index) => {
    const key = String(keyOf(item, index));
    const node = existing.get(key) ?? create(item);
    existing.delete(key);
    node.dataset.key = key;
    update(node, item);
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
  while (parent.children.length > items.length) parent.lastElementChild.remove();
}
