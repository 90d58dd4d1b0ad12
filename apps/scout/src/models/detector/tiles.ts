/** A part of an image, in whole pixels. */
export interface Tile {
  readonly x: number
  readonly y: number
  readonly width: number
  readonly height: number
}

// Of the shorter side. The detector sees 300 x 300 pixels, so that things smaller than a tenth of the frame are lost on
// it. Tried on the sample photos: 1.0 and 0.75 still miss the cats, 0.6 finds them with 8 tiles (0.5 s), 0.5 with 15 (0.9 s).
const TILE_SIDE = 0.6
const OVERLAP = 0.2
// A look takes 60 ms, and nothing else is looked at meanwhile: a line of 1024 x 1 pixels would need 1280 of them.
const MOST_TILES = 50

/**
 * Squares that cover an image and overlap by at least a fifth, for a second and closer look. None of a long panorama's
 * tiles is larger than its shorter side, so their number grows with the ratio of the sides: 4 to 10 for photos. None where
 * there would be more than 50, as from twelve to one on.
 */
export function tilesOf(width: number, height: number): Tile[] {
  const side = Math.max(1, Math.round(Math.min(width, height) * TILE_SIDE))
  const [rows, columns] = [starts(height, side), starts(width, side)]
  if (rows.length * columns.length > MOST_TILES) return []
  return rows.flatMap((y) => columns.map((x) => ({ x, y, width: side, height: side })))
}

function starts(length: number, side: number): number[] {
  const count = Math.ceil((length - side * OVERLAP) / (side * (1 - OVERLAP)))
  if (count < 2) return [0]
  return Array.from({ length: count }, (_, index) => Math.round((index * (length - side)) / (count - 1)))
}
