// Small things with nodes. Whatever is shown is set as text, and only where it differs.

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
 * Makes the children of `parent` those of `items`, in order: who was there is updated, not made anew.
 *
 * @param {Element} parent
 * @param {any[]} items
 * @param {(item: any, index: number) => string | number} keyOf - what an item is known by
 * @param {(item: any) => HTMLElement} make
 * @param {(node: HTMLElement, item: any) => void} [update] - also called for what was just made
 */
export function keep(parent, items, keyOf, make, update = () => {}) {
  const there = new Map(Array.from(parent.children, (node) => [node.dataset.key, node]));
  items.forEach((item, index) => {
    const key = String(keyOf(item, index));
    const node = there.get(key) ?? make(item);
    there.delete(key);
    node.dataset.key = key;
    update(node, item);
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
  while (parent.children.length > items.length) parent.lastElementChild.remove();
}
