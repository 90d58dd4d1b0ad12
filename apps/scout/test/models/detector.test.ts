import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { decodePixels, type Pixels } from '../../src/images.ts'
import { COCO_LABELS } from '../../src/models/detector/coco-labels.ts'
import { Detector } from '../../src/models/detector/detector.ts'
import { tilesOf } from '../../src/models/detector/tiles.ts'
import { samplePhotos } from '../../src/samples.ts'

const detector = new Detector()
afterAll(() => detector.close())

async function pixelsOf(name: string): Promise<Pixels> {
  const { file } = samplePhotos().find((photo) => photo.name === `${name}.jpg`)!
  return await decodePixels(await readFile(file))
}

describe('the local detector', () => {
  test('sees cats in the photo of cats, by looking twice', async () => {
    const detections = await detector.detect(await pixelsOf('locomotion-house-cat'), null)
    expect(detections.map(({ label }) => label)).toContain('cat')
  })

  test('sees boats and a person in the photo of boats, with boxes in fractions of the image', async () => {
    const detections = await detector.detect(await pixelsOf('nagasaki-boats'), null)
    expect(detections.map(({ label }) => label)).toEqual(expect.arrayContaining(['boat', 'person']))
    expect(detections.map(({ confidence }) => confidence)).toEqual(
      detections.map(({ confidence }) => confidence).sort((a, b) => b - a),
    )
    for (const { box, confidence } of detections) {
      expect(Math.min(box.x, box.y, box.width, box.height, confidence)).toBeGreaterThanOrEqual(0)
      expect(Math.max(box.x + box.width, box.y + box.height, confidence)).toBeLessThanOrEqual(1.0001)
    }
    // The large boat in front lies in the lower half.
    expect(detections.find(({ label }) => label === 'boat')?.box.y).toBeGreaterThan(0.4)
  })

  test('sees nothing in a landscape', async () => {
    expect(await detector.detect(await pixelsOf('french-alpine-landscape'), null)).toEqual([])
  })

  test('reports only the labels asked for', async () => {
    const detections = await detector.detect(await pixelsOf('nagasaki-boats'), ['boat'])
    expect(new Set(detections.map(({ label }) => label))).toEqual(new Set(['boat']))
  })

  test('answers many at once, in the order in which they came', async () => {
    const images = await Promise.all(Array.from({ length: 4 }, () => pixelsOf('nagasaki-boats')))
    const answered: number[] = []
    const looks = images.map(async (pixels, index) => {
      const [first] = await detector.detect(pixels, ['person'])
      answered.push(index)
      return first?.confidence
    })
    expect(new Set(await Promise.all(looks)).size).toBe(1)
    expect(answered).toEqual([0, 1, 2, 3])
  })

  test('a signal ends a wait and a computation with its reason, and the others go on', async () => {
    const waits = new AbortController()
    const runs = new AbortController()
    const [first, second, third] = await Promise.all(
      Array.from({ length: 3 }, () => pixelsOf('nagasaki-boats')),
    )
    const running = detector.detect(first!, null, runs.signal)
    const waiting = detector.detect(second!, null, waits.signal)
    const other = detector.detect(third!, ['person'])
    waits.abort(new Error('no longer wanted'))
    await expect(waiting).rejects.toThrow('no longer wanted')
    runs.abort(new Error('took too long'))
    await expect(running).rejects.toThrow('took too long')
    expect((await other).length).toBeGreaterThan(0)
    await expect(
      detector.detect(await pixelsOf('nagasaki-boats'), null, AbortSignal.abort('before')),
    ).rejects.toBe('before')
  })

  test('a crash of its thread is an error, and the next image starts another', async () => {
    const broken: Pixels = { data: new Uint8Array(7), width: 100, height: 100 }
    await expect(detector.detect(broken, null)).rejects.toMatchObject({
      code: 'DETECTOR_FAILED',
      message: expect.stringContaining('npm ci'),
    })
    expect((await detector.detect(await pixelsOf('nagasaki-boats'), ['person'])).length).toBeGreaterThan(0)
  })

  test('closing refuses what waits and what runs', async () => {
    const closing = new Detector()
    const [first, second] = await Promise.all([pixelsOf('nagasaki-boats'), pixelsOf('nagasaki-boats')])
    const refused = [closing.detect(first!, null), closing.detect(second!, null)].map((detection) =>
      expect(detection).rejects.toMatchObject({ code: 'DETECTOR_FAILED' }),
    )
    await closing.close()
    await Promise.all(refused)
  })

  test('an idle detector does not keep its process alive', async () => {
    const script = `
      import { Detector } from ${JSON.stringify(new URL('../../src/models/detector/detector.ts', import.meta.url).href)}
      const pixels = { data: new Uint8Array(30000), width: 100, height: 100 }
      console.log((await new Detector().detect(pixels, null)).length)`
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    const [[code], output] = await Promise.all([once(child, 'exit'), text(child.stdout)])
    expect([code, output]).toEqual([0, '0\n'])
  })
})

test('the labels are the 80 of COCO', () => {
  expect(COCO_LABELS.size).toBe(80)
  expect(new Set(COCO_LABELS.values()).size).toBe(80)
  expect([...COCO_LABELS.keys()].every((number) => number >= 1 && number <= 90)).toBe(true)
})

test.each([
  [1024, 768],
  [1024, 510],
  [100, 1000],
  [1, 1],
  [3, 2],
])('tiles cover an image of %i x %i, inside of it', (width, height) => {
  const tiles = tilesOf(width, height)
  const covered = new Uint8Array(width * height)
  for (const tile of tiles) {
    expect(tile.x >= 0 && tile.y >= 0 && tile.x + tile.width <= width && tile.y + tile.height <= height).toBe(
      true,
    )
    for (let y = tile.y; y < tile.y + tile.height; y++)
      covered.fill(1, y * width + tile.x, y * width + tile.x + tile.width)
  }
  expect(covered.every((value) => value === 1)).toBe(true)
})

test.each([
  [1024, 1],
  [1024, 12],
  [5, 1024],
])('a strip of %i x %i is not looked at hundreds of times', (width, height) => {
  expect(tilesOf(width, height)).toEqual([])
})
