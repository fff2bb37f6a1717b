// A table with one row per process. On narrow screens, CSS shows each row as a card.

import { element, reconcile, setAttribute, setText } from "./dom.js";

/**
 * @typedef {object} Column
 * @property {string} name
 * @property {(item: any, status: any) => string} text
 * @property {boolean} [isFigure]
 * @property {(item: any) => string} [state] - the cell shows the color of this state
 */

export class Table {
  #columns;
  #body;
  #keyOf;

  /**
   * @param {HTMLTableElement} table - with its caption
   * @param {(item: any) => string} keyOf
   * @param {Column[]} columns - the first one is the header of the row
   */
  constructor(table, keyOf, columns) {
    this.#keyOf = keyOf;
    this.#columns = columns;
    const head = element("tr");
    for (const { name, isFigure } of columns) {
      const cell = element("th", isFigure ? "figure" : "", name);
      cell.scope = "col";
      head.append(cell);
    }
    table.createTHead().append(head);
    this.#body = table.createTBody();
    // CSS that shows rows as cards removes the table semantics; the roles restore them for screen readers.
    for (const [selector, role] of [
      ["table", "table"],
      ["thead, tbody", "rowgroup"],
      ["tr", "row"],
      ["th", "columnheader"],
    ]) {
      const found = selector === "table" ? [table] : table.querySelectorAll(selector);
      for (const node of found) node.setAttribute("role", role);
    }
  }

  render(items, status) {
    reconcile(
      this.#body,
      items,
      this.#keyOf,
      () => this.#createRow(),
      (row, item) => this.#updateRow(row, item, status),
    );
  }

  #createRow() {
    const row = element("tr");
    row.setAttribute("role", "row");
    this.#columns.forEach(({ name, isFigure }, index) => {
      const cell = element(index ? "td" : "th", isFigure ? "figure" : "");
      if (!index) cell.scope = "row";
      cell.setAttribute("role", index ? "cell" : "rowheader");
      cell.dataset.name = name;
      row.append(cell);
    });
    return row;
  }

  #updateRow(row, item, status) {
    this.#columns.forEach(({ text, state }, index) => {
      const cell = row.children[index];
      setText(cell, text(item, status));
      if (state) setAttribute(cell, "data-state", state(item));
    });
  }
}
