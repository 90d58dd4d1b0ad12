import { execFile } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { testDatabaseUrl } from '../../triphase/test/support/database-url.ts'
import { useFiles } from './support/file-bench.ts'

const files = useFiles()
const LINES = 200_000

test('a file of 200,000 lines is loaded and exported by a process with a heap of 32 MB', async () => {
  const [input, output] = [files.path('large.csv'), files.path('large.out.csv')]
  await pipeline(Readable.from(content()), createWriteStream(input))
  expect((await stat(input)).size).toBeGreaterThan(32 * 2 ** 20)
  const program = fileURLToPath(new URL('./support/stream-program.ts', import.meta.url))
  const args = ['--conditions=triphase-source', '--max-old-space-size=32', program]
  const { stdout } = await promisify(execFile)(process.execPath, [
    ...args,
    testDatabaseUrl(),
    'triphase',
    files.table('large'),
    input,
    output,
  ])
  expect(JSON.parse(stdout)).toMatchObject({ lines: LINES })
  // `,pending,,` on each line, and the header.
  expect((await stat(output)).size).toBe(
    (await stat(input)).size + LINES * 10 + ',status,result,error'.length,
  )
})

function* content(): Generator<string> {
  yield 'id,url,text\n'
  for (let first = 1; first <= LINES; first += 1_000) {
    const rows = Array.from({ length: 1_000 }, (_, index) => first + index)
    yield rows.map((id) => `${id},https://photos.example/${id}.jpg,"${'a text, '.repeat(18)}"\n`).join('')
  }
}
