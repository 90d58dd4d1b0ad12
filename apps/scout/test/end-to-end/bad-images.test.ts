import { readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import sharp from 'sharp'
import { describe, expect, test } from 'vitest'
import { eventually } from '../../../../packages/triphase/test/support/processes.ts'
import { setScene, smallImage } from '../support/scene.ts'

describe('among good images', () => {
  test('bad ones are named and tried again by the next run, and the good ones are left alone', async ({
    onTestFinished,
  }) => {
    const { folder, analyze, database, model } = await setScene(3, onTestFinished)
    const put = (name: string, bytes: Uint8Array | string) => writeFile(path.join(folder, name), bytes)
    const photo = await readFile(path.join(folder, '00.jpg'))
    const huge = sharp({ create: { width: 10_000, height: 10_000, channels: 3, background: '#336699' } })
    await Promise.all([
      put('corrupt.jpg', photo.subarray(0, photo.length / 2)),
      put('empty.png', ''),
      put('huge.jpg', await huge.jpeg().toBuffer()),
      put('text.jpg', 'Dear diary, today I was renamed.'),
      put('evil\u001b[2J\n.webp', 'a name that clears the screen'),
    ])
    const bad = ['corrupt.jpg', 'empty.png', 'evil\u001b[2J\n.webp', 'text.jpg']
    const run = async () => {
      const { code, output, errors } = await analyze().ended
      expect({ code, errors }).toEqual({ code: 1, errors: '' })
      expect(output).toMatch(/│ corrupt\.jpg +│ failed +│ IMAGE_CORRUPT +│\n/)
      expect(output).toMatch(
        /\nfailed: corrupt\.jpg: The image is damaged or cut off \(.+\)\. Copy or record it again\.\n/,
      )
      expect(output).toContain('\nfailed: empty.png: The file is empty. Copy or record the image again.\n')
      expect(output).toContain(
        '\nfailed: text.jpg: The content is not a JPEG, PNG or WebP image, whatever its name says.',
      )
      expect(output).toContain('\nfailed: evil [2J .webp: The content is not')
      expect(output).not.toContain('\u001b')
      expect(output).toMatch(/\nRun the same command again to try these again\.\n$/)
      return output
    }
    expect(await run()).toMatch(/\n8 images: 4 analysed in \d+ s, 4 failed\.\n/)
    const rows = await database.analyses()
    expect(
      rows
        .filter(({ status }) => status === 'failed')
        .map(({ file_name }) => file_name)
        .sort(),
    ).toEqual(bad)
    expect(new Set(rows.map(({ error_code }) => error_code))).toEqual(
      new Set(['IMAGE_CORRUPT', 'IMAGE_EMPTY', 'IMAGE_UNKNOWN', null]),
    )
    expect((await model.calls()).calls).toHaveLength(4)

    expect(await run()).toContain('\n8 images: 4 known from before, 4 failed.\n')
    expect(await database.analyses()).toEqual(rows)
    expect((await model.calls()).calls).toHaveLength(4)

    for (const name of bad) await put(name, await smallImage())
    expect(await analyze().ended).toMatchObject({ code: 0, errors: '' })
    expect((await model.calls()).calls).toHaveLength(8)
  })

  test('one whose file was deleted from the store before its call is named, and the next run stores it again', async ({
    onTestFinished,
  }) => {
    const { analyze, database, model, data } = await setScene(2, onTestFinished)
    await model.behave({ behaviour: { kind: 'hold' } })
    const scout = analyze({ SCOUT_CONCURRENCY: '1' })
    await model.calls(1)
    await eventually(async () => (await database.analyses()).length === 2)
    const [waiting] = (await database.analyses()).filter(({ status }) => status === null)
    await rm(path.join(data, 'objects', waiting!.object_key))
    await model.release()
    const { code, output } = await scout.ended
    expect(code).toBe(1)
    expect(output).toContain(
      `\nfailed: ${waiting!.file_name}: Could not read ${data}/objects/${waiting!.object_key}: it does not exist.`,
    )
    expect((await database.analyses()).find(({ job_id }) => job_id === waiting!.job_id)).toMatchObject({
      status: 'failed',
      error_code: 'OBJECT_MISSING',
    })
    expect(await analyze().ended).toMatchObject({ code: 0, errors: '' })
    expect((await model.calls()).calls).toHaveLength(2)
    expect((await database.analyses()).map(({ job_id }) => job_id)).toContain(waiting!.job_id)
  })
})
