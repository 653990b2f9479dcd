// Where tiles go. Pure: sizes in, rectangles out.

const GAP = 12;
const ASPECT_MAX = 16 / 9;

/**
 * Rectangles `{ x, y, width, height }` for `count` tiles in an area. With `hasSpotlight` the first
 * is large and the others make a strip beside or below it.
 */
export function place(count, area, hasSpotlight = false) {
  const gap = Math.min(area.width, area.height) < 520 ? GAP / 2 : GAP;
  if (!hasSpotlight || count < 2) return grid(count, area, gap);
  const isWide = area.width > area.height;
  const strip = isWide
    ? { width: Math.max(150, area.width * 0.2), height: area.height }
    : { width: area.width, height: Math.max(110, area.height * 0.26) };
  const main = isWide
    ? { width: area.width - strip.width - gap, height: area.height }
    : { width: area.width, height: area.height - strip.height - gap };
  const [dx, dy] = isWide ? [main.width + gap, 0] : [0, main.height + gap];
  const others = grid(count - 1, strip, gap);
  return [
    { x: 0, y: 0, ...main },
    ...others.map((tile) => ({ ...tile, x: tile.x + dx, y: tile.y + dy })),
  ];
}

/** The number of columns that gives the largest tiles; the last row is centred. */
function grid(count, area, gap) {
  const aspectMin = area.width > area.height ? 4 / 3 : 0.8;
  let best = { size: 0 };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const cellWidth = (area.width - gap * (columns - 1)) / columns;
    const cellHeight = (area.height - gap * (rows - 1)) / rows;
    const width = Math.floor(Math.min(cellWidth, cellHeight * ASPECT_MAX));
    const height = Math.floor(Math.min(cellHeight, width / aspectMin));
    const size = width * height;
    if (width > 0 && height > 0 && size > best.size) best = { size, columns, rows, width, height };
  }
  if (!best.size) return Array.from({ length: count }, () => ({ x: 0, y: 0, width: 0, height: 0 }));

  const { columns, rows, width, height } = best;
  const top = (area.height - rows * height - (rows - 1) * gap) / 2;
  return Array.from({ length: count }, (_, index) => {
    const row = Math.floor(index / columns);
    const inRow = Math.min(columns, count - row * columns);
    const left = (area.width - inRow * width - (inRow - 1) * gap) / 2;
    return {
      x: Math.round(left + (index % columns) * (width + gap)),
      y: Math.round(top + row * (height + gap)),
      width,
      height,
    };
  });
}
