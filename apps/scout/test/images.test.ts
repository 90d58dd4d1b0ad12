import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import sharp from 'sharp'
import { beforeAll, describe, expect, test } from 'vitest'
import { contentHash, decodePixels, inspectImage, prepareForModel } from '../src/images.ts'
import { samplePhotos } from '../src/samples.ts'

let photo: Buffer
beforeAll(async () => {
  photo = await readFile(samplePhotos()[0]!.file)
})

/** Left half red, right half blue. */
function twoColours(width: number, height: number) {
  const blue = { create: { width: width / 2, height, channels: 3 as const, background: '#0000ff' } }
  return sharp({ create: { width, height, channels: 3, background: '#ff0000' } }).composite([
    { input: blue, left: width / 2, top: 0 },
  ])
}

function transparent(width: number, height: number) {
  return sharp({ create: { width, height, channels: 4, background: '#00000000' } })
}

describe('images', () => {
  test('are known by the hash of their content', () => {
    expect(contentHash(Buffer.from('abc'))).toBe(
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    )
  })

  test('are inspected by content: JPEG, PNG and WebP', async () => {
    const image = twoColours(40, 30)
    expect(await inspectImage(await image.clone().jpeg().toBuffer())).toEqual({
      format: 'jpeg',
      contentType: 'image/jpeg',
      width: 40,
      height: 30,
    })
    expect(await inspectImage(await image.clone().png().toBuffer())).toMatchObject({
      format: 'png',
      contentType: 'image/png',
    })
    expect(await inspectImage(await image.clone().webp().toBuffer())).toMatchObject({
      format: 'webp',
      contentType: 'image/webp',
    })
  })

  test.each([
    ['nothing', Buffer.alloc(0), 'IMAGE_EMPTY'],
    ['text that is called .jpg', Buffer.from('Dear diary, today I was renamed.'), 'IMAGE_UNKNOWN'],
    [
      'an SVG',
      Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
      'IMAGE_UNKNOWN',
    ],
    ['noise', Buffer.from(randomBytes(5_000).fill(7, 0, 8)), 'IMAGE_UNKNOWN'],
    [
      'noise after the first bytes of a JPEG',
      Buffer.concat([Buffer.from('ffd8ffe0', 'hex'), Buffer.alloc(900, 3)]),
      'IMAGE_CORRUPT',
    ],
    [
      'noise after the first bytes of a PNG',
      Buffer.concat([Buffer.from('89504e470d0a1a0a', 'hex'), Buffer.alloc(900, 3)]),
      'IMAGE_CORRUPT',
    ],
  ])('%s is refused, for a model too', async (_, bytes, code) => {
    await expect(inspectImage(bytes)).rejects.toMatchObject({ name: 'ImageError', code })
    await expect(prepareForModel(bytes)).rejects.toMatchObject({ name: 'ImageError', code })
    await expect(decodePixels(bytes)).rejects.toMatchObject({ name: 'ImageError', code })
  })

  test('a GIF is refused by its content', async () => {
    await expect(inspectImage(await twoColours(8, 8).gif().toBuffer())).rejects.toMatchObject({
      code: 'IMAGE_UNKNOWN',
    })
  })

  test('an image that is cut off is corrupt once it is decoded', async () => {
    const half = photo.subarray(0, photo.length / 2)
    expect(await inspectImage(half)).toMatchObject({ format: 'jpeg' })
    await expect(prepareForModel(half)).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
    await expect(decodePixels(half)).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
  })

  test('a photo is scaled down to a JPEG, always the same one', async () => {
    const large = await sharp(photo).resize(3_000).jpeg().toBuffer()
    const prepared = await prepareForModel(large)
    expect(prepared).toMatchObject({ contentType: 'image/jpeg', width: 1024 })
    expect(await sharp(prepared.bytes).metadata()).toMatchObject({
      format: 'jpeg',
      width: 1024,
      height: prepared.height,
    })
    expect(contentHash((await prepareForModel(large)).bytes)).toBe(contentHash(prepared.bytes))
  })

  test('a small image keeps its size', async () => {
    expect(await prepareForModel(await twoColours(64, 32).png().toBuffer())).toMatchObject({
      width: 64,
      height: 32,
    })
  })

  test('an image is turned upright and loses its metadata', async () => {
    const lying = await twoColours(80, 40)
      .withExif({ IFD0: { Copyright: 'somewhere' } })
      .withMetadata({ orientation: 6 })
      .jpeg()
      .toBuffer()
    expect(await inspectImage(lying)).toMatchObject({ width: 40, height: 80 })
    const prepared = await prepareForModel(lying)
    expect(prepared).toMatchObject({ width: 40, height: 80 })
    expect((await sharp(prepared.bytes).metadata()).exif).toBeUndefined()
    const { data, width } = await decodePixels(lying)
    expect([...data.subarray(0, 3)].map((value) => value > 128)).toEqual([true, false, false])
    expect([...data.subarray(79 * width * 3, 79 * width * 3 + 3)].map((value) => value > 128)).toEqual([
      false,
      false,
      true,
    ])
  })

  test.each([
    ['grey', () => twoColours(20, 10).greyscale().png().toBuffer()],
    ['with transparency', () => transparent(20, 10).webp().toBuffer()],
    ['in CMYK', () => twoColours(20, 10).toColourspace('cmyk').jpeg().toBuffer()],
    ['with 16 bits a channel', () => twoColours(20, 10).toColourspace('rgb16').png().toBuffer()],
    ['with a palette', () => twoColours(20, 10).png({ palette: true }).toBuffer()],
  ])('an image %s becomes three bytes a pixel', async (_, make) => {
    const { data, width, height } = await decodePixels(await make())
    expect([data.length, width, height]).toEqual([600, 20, 10])
  })

  test('transparent parts are white', async () => {
    const { data } = await decodePixels(await transparent(20, 10).png().toBuffer())
    expect(data.every((value) => value === 255)).toBe(true)
  })

  test.each([
    ['a PNG', () => huge(10_000).png({ compressionLevel: 1 }).toBuffer()],
    ['a progressive JPEG', () => huge(10_000).jpeg({ progressive: true }).toBuffer()],
  ])('100 megapixels are scaled down: %s', async (_, make) => {
    expect(await prepareForModel(await make())).toMatchObject({ width: 1024, height: 1024 })
  })

  test('a huge image that is corrupt does not hold up the next', async () => {
    const large = await huge(5_100).png().toBuffer()
    const [broken, whole] = await Promise.allSettled([
      prepareForModel(large.subarray(0, large.length / 2)),
      prepareForModel(large),
    ])
    expect(broken).toMatchObject({ status: 'rejected', reason: { code: 'IMAGE_CORRUPT' } })
    expect(whole).toMatchObject({ status: 'fulfilled', value: { width: 1024 } })
  })

  test('more pixels than can be decoded safely are refused by the header alone', async () => {
    const tall = await huge(10).png().toBuffer()
    // A PNG whose header claims 20,000 x 20,000: width and height are at byte 16, and the checksum after them is corrected.
    tall.writeUInt32BE(20_000, 16)
    tall.writeUInt32BE(20_000, 20)
    const { crc32 } = await import('node:zlib')
    tall.writeUInt32BE(crc32(tall.subarray(12, 29)), 29)
    await expect(prepareForModel(tall)).rejects.toMatchObject({
      code: 'IMAGE_TOO_LARGE',
      message: expect.stringContaining('400 megapixels'),
    })
  })

  function huge(side: number) {
    return sharp({ create: { width: side, height: side, channels: 3, background: '#336699' } })
  }
})
