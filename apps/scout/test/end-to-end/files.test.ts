import { readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { parse } from 'csv-parse/sync'
import { describe, expect, test } from 'vitest'
import { serverAddress, startFaultProxy } from '../../../../packages/triphase/test/support/fault-proxy.ts'
import { eventually } from '../../../../packages/triphase/test/support/processes.ts'
import { type Scene, setScene, smallImage } from '../support/scene.ts'
import type { WhenFinished } from '../support/temporary-folder.ts'

interface Result {
  id: string
  status: string
  labels: string
  description: string
  error: string
}

async function list(scene: Scene, name: string, content: string): Promise<string> {
  const file = path.join(scene.folder, name)
  await writeFile(file, content)
  return file
}

async function results(file: string): Promise<Result[]> {
  return parse(await readFile(file), {
    columns: true,
    bom: true,
    delimiter: [',', ';'],
  }) as unknown as Result[]
}

/** A list of so many texts, and the command that sends them through the model. */
async function texts(count: number, whenFinished: WhenFinished) {
  const scene = await setScene(0, whenFinished)
  const rows = Array.from({ length: count }, (_, index) => `${index},"text, ${index}"\n`)
  const file = await list(scene, 'list.csv', `id,text\n${rows.join('')}`)
  const run = (env: Record<string, string> = {}, ...more: string[]) =>
    scene.scout(['files', file, '--column', 'text', ...more], env)
  return { ...scene, file, run, output: path.join(scene.folder, 'list.results.csv') }
}

/** The tables of lists. */
async function tables({ database }: Scene): Promise<string[]> {
  const { rows } = await database.pool.query<{ name: string }>(
    `SELECT relname AS name FROM pg_class WHERE relname LIKE 'file\\_%' AND relkind = 'r'`,
  )
  return rows.map(({ name }) => name)
}

async function done(scene: Scene): Promise<number> {
  const [table] = await tables(scene)
  if (table === undefined) return 0
  const { rows } = await scene.database.pool.query(
    `SELECT count(*)::int AS n FROM scout.${table} WHERE status = 'done'`,
  )
  return rows[0].n
}

describe.concurrent('files', () => {
  test('sends each image of a list through the model once, and the list comes back with the results', async ({
    onTestFinished,
  }) => {
    const scene = await setScene(6, onTestFinished)
    const names = (await readdir(scene.folder)).sort()
    const rows = names.map((name, index) => `${index};"a ""note"""; ${name}\r\n`)
    const file = await list(scene, 'images.csv', `\ufeffid;note;picture\r\n${rows.join('')}`)
    const run = () => scene.scout(['files', file, '--column', 'path=picture']).ended
    const first = await run()
    expect(first).toMatchObject({ code: 0, errors: '' })
    expect(first.output).toMatch(/^6 lines of images\.csv, model compatible:test, database /)
    expect(first.output).toMatch(/\n6 of 6 lines(, [\d.]+ a second)?\n/)
    const output = path.join(scene.folder, 'images.results.csv')
    expect(first.output).toContain(`\nThe results are in ${output}\n`)
    expect(await readFile(output, 'utf8')).toMatch(
      /^\ufeffid;note;picture;status;labels;description;observations;model;error\r\n0;"a ""note"""; 00\.jpg;done;thing;call \d;/,
    )
    const found = await results(output)
    expect(found.map(({ id, status, error }) => [id, status, error])).toEqual(
      names.map((_, index) => [String(index), 'done', '']),
    )
    expect(new Set(found.map(({ description }) => description)).size).toBe(6)
    const { calls } = await scene.model.calls()
    expect(calls).toHaveLength(6)
    const again = await run()
    expect(again).toMatchObject({ code: 0, errors: '' })
    expect(again.output).toContain('6 lines of images.csv, known from before')
    expect(await results(output)).toEqual(found)
    expect((await scene.model.calls()).calls).toHaveLength(6)
  })

  test('killed in the middle of its calls it makes those again, and no other', async ({ onTestFinished }) => {
    const it = await texts(20, onTestFinished)
    await it.model.behave({ behaviour: { kind: 'answer' }, times: 7 }, { behaviour: { kind: 'hold' } })
    const killed = it.run({ SCOUT_CONCURRENCY: '4' })
    await it.model.calls(11)
    await eventually(async () => (await done(it)) === 7)
    await killed.kill()
    await it.database.sessionsEnded()
    expect(await readdir(it.folder)).toEqual(['list.csv'])
    await it.model.behave()
    const again = await it.run({ SCOUT_CONCURRENCY: '4' }).ended
    expect(again).toMatchObject({ code: 0, errors: '' })
    // More, where the first new calls were over before it looked.
    expect(again.output).toMatch(/^Goes on where it was: ([7-9]|1\d|20) records were done before\.$/m)
    expect((await results(it.output)).map(({ status }) => status)).toEqual(Array(20).fill('done'))
    expect((await it.model.calls()).calls).toHaveLength(24)
  })

  test('Ctrl-C lets its calls finish, and the same command goes on', async ({ onTestFinished }) => {
    const it = await texts(6, onTestFinished)
    await it.model.behave({ behaviour: { kind: 'hold' } })
    const scout = it.run({ SCOUT_CONCURRENCY: '2' })
    await it.model.calls(2)
    scout.signal('SIGINT')
    await scout.says(/^Stopping: calls under way get 10 s/m)
    await it.model.release()
    const { code, output, errors } = await scout.ended
    expect({ code, errors }).toEqual({ code: 130, errors: '' })
    expect(output).toMatch(
      /\nStopped with [2-6] of 6 lines done\. Run the same command again (for the rest|to see the results)\.\n$/,
    )
    expect((await it.run().ended).code).toBe(0)
    expect((await it.model.calls()).calls).toHaveLength(6)
  })

  test('a list with faults is refused by its line numbers; nothing is loaded, nothing called', async ({
    onTestFinished,
  }) => {
    const scene = await setScene(0, onTestFinished)
    const file = await list(
      scene,
      'faults.csv',
      'id,url\n1,"http://a.example/\n"\n2,ftp://b.example\n3\n4,\n',
    )
    const { code, output, errors } = await scene.scout(['files', file, '--column', 'url']).ended
    expect({ code, output }).toEqual({ code: 1, output: '' })
    expect(errors.split('\n')).toEqual([
      'faults.csv cannot be used: 3 lines with faults. Nothing was loaded and nothing was called.',
      '  line 4: url: must be a URL that begins with http:// or https://, without a user name or password',
      '  line 5: it has 1 field, the header row 2',
      '  line 6: url: is empty',
      'Correct them and run the same command again.',
      '',
    ])
    expect(await tables(scene)).toEqual([])
    expect((await scene.model.calls()).calls).toEqual([])
  })

  test('lines that failed are told, exported, and tried again when asked to', async ({ onTestFinished }) => {
    const it = await texts(5, onTestFinished)
    await it.model.behave({ behaviour: { kind: 'status', status: 400 }, times: 2 })
    const failed = await it.run().ended
    expect(failed).toMatchObject({ code: 1, errors: '' })
    expect(failed.output).toContain('\n5 lines: 3 done, 2 failed, in ')
    expect(failed.output).toMatch(/\n2 x The model's server answered 400.*\n.* --retry-errors /)
    expect(
      (await results(it.output)).filter(({ status, error }) => status === 'error' && /400/.test(error)),
    ).toHaveLength(2)
    const plain = await it.run().ended
    expect(plain.code).toBe(1)
    expect((await it.model.calls()).calls).toHaveLength(5)
    const retried = await it.run({}, '--retry-errors').ended
    expect(retried).toMatchObject({ code: 0, errors: '' })
    expect((await results(it.output)).every(({ status, error }) => status === 'done' && error === '')).toBe(
      true,
    )
    expect((await it.model.calls()).calls).toHaveLength(7)
  })

  test('stops after fifty failures in a row, says so, and goes on by the same command', async ({
    onTestFinished,
  }) => {
    const it = await texts(300, onTestFinished)
    await it.model.behave({ behaviour: { kind: 'status', status: 400 }, times: 300 })
    const { code, output, errors } = await it.run({ SCOUT_CONCURRENCY: '2' }).ended
    expect({ code, errors }).toEqual({ code: 1, errors: '' })
    // The row is counted once a second.
    expect(output).toMatch(/\n300 lines: 0 done, \d+ failed, \d+ left, in /)
    expect(output).toMatch(
      /\nThe run is paused: \d+ calls failed in a row\. The last failure: The model's server answered 400.*\nRun the same command again for the rest\.\n/,
    )
    await it.model.behave()
    expect((await it.run().ended).output).toMatch(/\n300 lines: \d+ done, \d+ failed, in /)
    expect((await it.model.calls()).calls).toHaveLength(300)
  })

  test('tells of failures that no line is marked with yet, and of the last one when it pauses', async ({
    onTestFinished,
  }) => {
    const it = await texts(60, onTestFinished)
    await it.model.behave({ behaviour: { kind: 'status', status: 500 } })
    const { code, output, errors } = await it.run({ SCOUT_CONCURRENCY: '4' }).ended
    expect({ code, errors }).toEqual({ code: 1, errors: '' })
    expect(output.match(/^The model's server answered 500: .* Trying again later\.$/gm)).toHaveLength(1)
    expect(output).toMatch(
      /\nThe run is paused: \d+ calls failed in a row\. The last failure: The model's server answered 500: /,
    )
  })

  test('says that it was asked to wait, and waits', async ({ onTestFinished }) => {
    const it = await texts(3, onTestFinished)
    const behaviour = { kind: 'status', status: 429, headers: { 'retry-after': '4' } } as const
    await it.model.behave({ behaviour, times: 1 })
    const { code, output } = await it.run({ SCOUT_CONCURRENCY: '1' }).ended
    expect(code).toBe(0)
    expect(output).toMatch(/\nThe other side asks to wait: calls go on in [234] s\.\n/)
    expect((await it.model.calls()).calls).toHaveLength(4)
  })

  test('downloads what URLs lead to, bounded', async ({ onTestFinished }) => {
    const scene = await setScene(0, onTestFinished)
    const image = await smallImage('jpeg')
    const server = createServer((request, response) => {
      if (request.url === '/image.jpg') response.end(image)
      else if (request.url === '/moved') response.writeHead(302, { location: '/image.jpg' }).end()
      else if (request.url === '/large') response.writeHead(200, { 'content-length': 2 ** 30 }).write('x')
      else if (request.url === '/page') response.end('<html>')
      else response.writeHead(404).end()
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => {
      server.closeAllConnections()
      server.close()
    })
    const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
    const places = ['image.jpg', 'moved', 'large', 'page', 'missing?token=secret']
    const lines = places.map((place, id) => JSON.stringify({ id, url: `http://${host}/${place}` }))
    const file = await list(scene, 'urls.jsonl', lines.join('\n'))
    const output = path.join(scene.folder, 'out.csv')
    const { code, errors } = await scene.scout(['files', file, '--column', 'url', '--output', output]).ended
    expect({ code, errors }).toEqual({ code: 1, errors: '' })
    expect((await results(output)).map(({ status, error }) => [status, error])).toEqual([
      ['done', ''],
      ['done', ''],
      ['error', `${host} sends more than 50 MB.`],
      ['error', expect.stringContaining('not a JPEG, PNG or WebP')],
      ['error', `${host} answered 404.`],
    ])
    expect((await scene.model.calls()).calls).toHaveLength(2)
  })

  test('a list that has changed is refused, and begun anew when asked to', async ({ onTestFinished }) => {
    const it = await texts(2, onTestFinished)
    expect((await it.run().ended).code).toBe(0)
    await writeFile(it.file, 'id,text\n7,seven\n')
    const { code, errors } = await it.run().ended
    expect(code).toBe(1)
    expect(errors).toBe(
      'list.csv has changed since it was begun. Run the same command with --replace to begin anew with all of its lines, or undo the change.\n',
    )
    expect(await it.run({}, '--replace').ended).toMatchObject({ code: 0, errors: '' })
    expect((await results(it.output)).map(({ id, status }) => [id, status])).toEqual([['7', 'done']])
  })

  test("two lists at once do not take each other's jobs, nor does one that was interrupted", async ({
    onTestFinished,
  }) => {
    const it = await texts(30, onTestFinished)
    const ask = (prompt: string) => it.run({}, '--prompt', prompt, '--output', `${it.file}.${prompt}.csv`)
    await it.model.behave({ behaviour: { kind: 'hold' } })
    const interrupted = ask('one')
    await it.model.calls(1)
    await interrupted.kill()
    const lists = [ask('two'), ask('three')]
    await Promise.all(lists.map((scout) => scout.says(/^30 lines of/m)))
    await it.model.release()
    for (const { code, output, errors } of await Promise.all(lists.map(({ ended }) => ended))) {
      expect({ code, errors }).toEqual({ code: 0, errors: '' })
      expect(output).not.toContain('has no task')
    }
    expect(await ask('one').ended).toMatchObject({ code: 0, errors: '' })
  })

  test('goes on when the database comes back', async ({ onTestFinished }) => {
    const it = await texts(12, onTestFinished)
    const proxy = await startFaultProxy(serverAddress(it.database.url))
    onTestFinished(() => proxy.close())
    await it.model.behave({ behaviour: { kind: 'answer' }, times: 4 }, { behaviour: { kind: 'hold' } })
    const scout = it.run({ SCOUT_CONCURRENCY: '2', DATABASE_URL: proxy.url(it.database.url) })
    await it.model.calls(6)
    proxy.refuse(true)
    proxy.cutAll()
    await it.model.release()
    await scout.says(/^The database .+ Waiting for it for up to 600 s\.$/m)
    proxy.refuse(false)
    expect(await scout.ended).toMatchObject({ code: 0, errors: '' })
    expect((await results(it.output)).map(({ status }) => status)).toEqual(Array(12).fill('done'))
    expect((await it.model.calls()).calls.length).toBeLessThanOrEqual(14)
  })

  test.for([
    [['files', 'list.csv'], /required option '--column <kind\[=name\]>' not specified/],
    [['files', '--column', 'text'], /missing required argument 'list'/],
    [['files', 'list.csv', '--column', 'picture'], /^--column must be url, path or text/],
    [['files', 'list.csv', '--column', 'url'], /has no column url; it has: id, text\. Say which one/],
    [['files', 'list.csv', '--column', 'url=link'], /has no column link/],
    [['files', 'missing.csv', '--column', 'text'], /missing\.csv does not exist\. Check the path\.\n$/],
    [['files', 'list.txt', '--column', 'text'], /What is .*list\.txt\?/],
    [['files', 'list.csv', '--column', 'text', '--delimiter', ';;'], /delimiter: one character/],
    [['files', 'list.csv', '--column', 'text', '--output', 'list.csv'], /take the place of the list/],
    [
      ['files', 'list.csv', '--column', 'text', '--output', '/tmp'],
      /^\/tmp is a folder\. Give --output a file/,
    ],
    [
      ['files', 'list.csv', '--column', 'text', '--output', 'nowhere/out.csv'],
      /cannot be written into .*nowhere/,
    ],
  ] as const)('%j is explained, before anything starts', async ([args, message], { onTestFinished }) => {
    const scene = await setScene(0, onTestFinished)
    await list(scene, 'list.csv', 'id,text\n1,a\n')
    const absolute = args.map((arg) => (/[.](csv|txt)$/.test(arg) ? path.join(scene.folder, arg) : arg))
    const { code, output, errors } = await scene.scout(absolute, { DATABASE_URL: 'postgres://127.0.0.1:1/x' })
      .ended
    expect({ code, output }).toEqual({ code: 1, output: '' })
    expect(errors).toMatch(message)
  })

  test('the local detector reads no text, and says so', async ({ onTestFinished }) => {
    const { scout, file } = { ...(await texts(1, onTestFinished)) }
    const { code, errors } = await scout(['files', file, '--column', 'text'], {
      SCOUT_MODEL: '',
      SCOUT_MODEL_URL: '',
    }).ended
    expect([code, errors]).toEqual([
      1,
      'The local detector looks at images and reads no text. Set SCOUT_MODEL.\n',
    ])
  })
})
