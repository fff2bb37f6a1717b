// A table with a row per process; where there is no room for columns, each row becomes a card.

import { element, keep, setAttribute, setText } from "./dom.js";

/**
 * @typedef {object} Column
 * @property {string} name
 * @property {(item: any, status: any) => string} text
 * @property {boolean} [isFigure]
 * @property {(item: any) => string} [state] - gives the cell a lamp
 */

export class Table {
  #columns;
  #body;
  #keyOf;

  /**
   * @param {HTMLTableElement} table - with its caption
   * @param {(item: any) => string} keyOf
   * @param {Column[]} columns - the first names the row
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
    // Cards are no table to a browser, but stay one to a screen reader.
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
    keep(
      this.#body,
      items,
      this.#keyOf,
      () => this.#make(),
      (row, item) => this.#update(row, item, status),
    );
  }

  #make() {
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

  #update(row, item, status) {
    this.#columns.forEach(({ text, state }, index) => {
      const cell = row.children[index];
      setText(cell, text(item, status));
      if (state) setAttribute(cell, "data-state", state(item));
    });
  }
}
