import { createHash } from 'node:crypto'
import sharp, { type Sharp } from 'sharp'

/** The kinds of image that Scout reads. */
export type ImageFormat = 'jpeg' | 'png' | 'webp'

/** What an image is, from its header: nothing has been decoded yet. Width and height are as a person sees them. */
export interface ImageFacts {
  readonly format: ImageFormat
  readonly contentType: `image/${ImageFormat}`
  readonly width: number
  readonly height: number
}

/** A JPEG of bounded size, the way it is sent to a model. */
export interface PreparedImage {
  readonly bytes: Uint8Array
  readonly contentType: 'image/jpeg'
  readonly width: number
  readonly height: number
}

/** Decoded pixels: three bytes (red, green, blue) each, row by row from the top left. */
export interface Pixels {
  readonly data: Uint8Array<ArrayBuffer>
  readonly width: number
  readonly height: number
}

/**
 * Why bytes cannot be used as an image. All of them are permanent: the same bytes will never be better.
 * `IMAGE_EMPTY` no bytes; `IMAGE_UNKNOWN` not a JPEG, PNG or WebP, whatever its name says; `IMAGE_CORRUPT` damaged or
 * cut off; `IMAGE_TOO_LARGE` more pixels than can be decoded safely.
 */
export type ImageErrorCode = 'IMAGE_EMPTY' | 'IMAGE_UNKNOWN' | 'IMAGE_CORRUPT' | 'IMAGE_TOO_LARGE'

/** Bytes that cannot be used as an image; the message says why and what to do. */
export class ImageError extends Error {
  readonly code: ImageErrorCode

  constructor(code: ImageErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'ImageError'
    this.code = code
  }
}

// Longest side in pixels: what providers scale larger images down to by themselves, or bill for.
const MODEL_SIDE = 1024

// sharp's own default, 16383 squared: beyond any camera, and still a bounded decode.
const MOST_PIXELS = 268_402_689
// Interlaced PNG and progressive JPEG cannot be decoded line by line: 100 megapixels measured 330 MB (others 15-65 MB).
const HUGE_PIXELS = 25_000_000
const JPEG_QUALITY = 90

let hugeDecode: Promise<unknown> = Promise.resolve()

/** SHA-256 of the bytes in lower-case hex: the identity of an image. */
export function contentHash(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/**
 * Reads the header: is it an image of a known kind, and how large? Damage further on shows only when it is decoded.
 *
 * @throws {ImageError}
 */
export async function inspectImage(bytes: Uint8Array): Promise<ImageFacts> {
  const format = formatOf(bytes)
  const { autoOrient } = await sharp(bytes, { limitInputPixels: false })
    .metadata()
    .catch((error) => corrupt(error))
  const pixels = autoOrient.width * autoOrient.height
  if (pixels > MOST_PIXELS) {
    const megapixels = Math.round(pixels / 1e6)
    throw new ImageError(
      'IMAGE_TOO_LARGE',
      `The image has ${megapixels} megapixels; at most ${Math.floor(MOST_PIXELS / 1e6)} can be read. Scale it down.`,
    )
  }
  return { format, contentType: `image/${format}`, width: autoOrient.width, height: autoOrient.height }
}

/**
 * Decodes an image and makes a JPEG of it whose longer side is at most 1024 pixels: turned upright, in sRGB,
 * transparent parts on white, without metadata such as the place where it was taken. The same bytes always give the
 * same JPEG.
 *
 * @throws {ImageError}
 */
export async function prepareForModel(bytes: Uint8Array): Promise<PreparedImage> {
  const { data, info } = await decode(bytes, (image) => image.jpeg({ quality: JPEG_QUALITY }))
  return { bytes: data, contentType: 'image/jpeg', width: info.width, height: info.height }
}

/**
 * Decodes an image into pixels, upright, its longer side at most 1024.
 *
 * @throws {ImageError}
 */
export async function decodePixels(bytes: Uint8Array): Promise<Pixels> {
  const { data, info } = await decode(bytes, (image) => image.raw())
  return { data: new Uint8Array(data), width: info.width, height: info.height }
}

async function decode(bytes: Uint8Array, encode: (image: Sharp) => Sharp) {
  const { width, height } = await inspectImage(bytes)
  // Resizing while decoding keeps only some lines in memory, and lets JPEG decode at an eighth of its size.
  const run = () =>
    encode(
      sharp(bytes, { autoOrient: true, sequentialRead: true, limitInputPixels: MOST_PIXELS })
        .resize(MODEL_SIDE, MODEL_SIDE, { fit: 'inside', withoutEnlargement: true })
        .flatten({ background: '#ffffff' })
        .toColourspace('srgb'),
    )
      .toBuffer({ resolveWithObject: true })
      .catch((error) => corrupt(error))
  if (width * height < HUGE_PIXELS) return await run()
  const turn = hugeDecode.then(run)
  hugeDecode = turn.catch(() => {})
  return await turn
}

/** By its first bytes, never by its name; and nothing else reaches the decoders, of which some (SVG) read other files. */
function formatOf(bytes: Uint8Array): ImageFormat {
  if (bytes.length === 0)
    throw new ImageError('IMAGE_EMPTY', 'The file is empty. Copy or record the image again.')
  const start = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 12)).toString('latin1')
  if (start.startsWith('\xff\xd8\xff')) return 'jpeg'
  if (start.startsWith('\x89PNG\r\n\x1a\n')) return 'png'
  if (start.startsWith('RIFF') && start.endsWith('WEBP')) return 'webp'
  throw new ImageError(
    'IMAGE_UNKNOWN',
    'The content is not a JPEG, PNG or WebP image, whatever its name says. Convert it to one of them.',
  )
}

function corrupt(error: unknown): never {
  const reason = error instanceof Error ? error.message.split('\n')[0]!.slice(0, 200) : String(error)
  throw new ImageError(
    'IMAGE_CORRUPT',
    `The image is damaged or cut off (${reason}). Copy or record it again.`,
    { cause: error },
  )
}
