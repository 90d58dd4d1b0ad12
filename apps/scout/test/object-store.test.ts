import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, open, readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { type FauxqsServer, startFauxqs } from 'fauxqs'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { captureKey, type ObjectStore } from '../src/object-store.ts'
import { openFolderStore } from '../src/object-stores/folder.ts'
import { openObjectStore } from '../src/object-stores/open.ts'
import { openS3Store } from '../src/object-stores/s3.ts'
import { temporaryFolder } from './support/temporary-folder.ts'

// The folder's disk can be made full: its files are then opened on /dev/full, whose writes the kernel refuses.
const disk = vi.hoisted(() => ({ full: false }))
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>()
  const opened: typeof real.open = (file, flags, mode) =>
    disk.full && flags === 'wx' ? real.open('/dev/full', 'w') : real.open(file, flags, mode)
  return { ...real, open: opened }
})

let s3: FauxqsServer
beforeAll(async () => {
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test')
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test')
  vi.stubEnv('AWS_REGION', 'eu-central-1')
  s3 = await startFauxqs({ port: 0, logger: false })
  s3.createBucket('captures')
})
afterAll(async () => {
  vi.unstubAllEnvs()
  await s3.stop()
})
afterEach(() => {
  disk.full = false
})

const endpoint = () => `http://127.0.0.1:${s3.port}`
const stores: Record<string, () => Promise<ObjectStore>> = {
  folder: async () =>
    openObjectStore({ kind: 'folder', folder: path.join(await temporaryFolder(), 'not yet', 'there') }),
  s3: async () => openObjectStore({ kind: 's3', bucket: 'captures', endpoint: endpoint() }),
}

describe.each(Object.keys(stores))('the contract of object stores: %s', (name) => {
  async function opened(): Promise<ObjectStore> {
    const store = await stores[name]!()
    onTestFinished(() => store.close())
    return store
  }

  test('gives back the bytes that were put', async () => {
    const store = await opened()
    const key = captureKey('ab'.repeat(32), 'jpeg')
    const bytes = randomBytes(3_000_000)
    expect(await store.exists(key)).toBe(false)
    await store.put(key, bytes, 'image/jpeg')
    expect(await store.exists(key)).toBe(true)
    expect(Buffer.compare(await store.get(key, new AbortController().signal), bytes)).toBe(0)
  })

  test('an object may be put again, by several at once, and be empty', async () => {
    const store = await opened()
    await Promise.all(
      Array.from({ length: 8 }, () => store.put('captures/twice.png', Buffer.from('same'), 'image/png')),
    )
    expect(Buffer.from(await store.get('captures/twice.png')).toString()).toBe('same')
    await store.put('captures/empty.png', new Uint8Array(), 'image/png')
    expect((await store.get('captures/empty.png')).length).toBe(0)
  })

  test('a missing object is an error of its own kind', async () => {
    const store = await opened()
    await expect(store.get('captures/gone.png')).rejects.toMatchObject({
      code: 'OBJECT_MISSING',
      name: 'ObjectStoreError',
    })
  })

  test.each([
    '',
    '/etc/passwd',
    '../escape',
    'a/../b',
    'a//b',
    'a/',
    'Captures/a',
    'a b',
    'a\0b',
    'a..b',
    'x'.repeat(600),
  ])('refuses the key %j', async (key) => {
    const store = await opened()
    for (const use of [store.put(key, Buffer.from('x'), 'image/png'), store.get(key), store.exists(key)]) {
      await expect(use).rejects.toMatchObject({ code: 'OBJECT_KEY_INVALID' })
    }
  })

  test('a signal that has aborted ends every use with its reason', async () => {
    const store = await opened()
    await store.put('captures/there.png', Buffer.from('x'), 'image/png')
    const reason = new Error('stopped')
    const signal = AbortSignal.abort(reason)
    await expect(store.get('captures/there.png', signal)).rejects.toBe(reason)
    await expect(store.exists('captures/there.png', signal)).rejects.toBe(reason)
    await expect(store.put('captures/new.png', Buffer.from('x'), 'image/png', signal)).rejects.toBe(reason)
    expect(await store.exists('captures/new.png')).toBe(false)
  })
})

describe('the folder store', () => {
  test('a full disk is a clear error and leaves no file', async () => {
    const folder = await temporaryFolder()
    const store = openFolderStore(folder)
    disk.full = true
    await expect(store.put('captures/ab/new.png', randomBytes(100_000), 'image/png')).rejects.toMatchObject({
      code: 'STORE_FULL',
      message: expect.stringContaining('SCOUT_DATA'),
      cause: { code: 'ENOSPC' },
    })
    expect(await filesIn(folder)).toEqual([])
    disk.full = false
    await store.put('captures/ab/new.png', Buffer.from('x'), 'image/png')
    expect(await filesIn(folder)).toEqual(['captures/ab/new.png'])
  })

  test('removes what a killed process left half written, and not what another is writing', async () => {
    const folder = await temporaryFolder()
    await mkdir(path.join(folder, 'incoming'))
    for (const name of ['abandoned', 'being-written'])
      await writeFile(path.join(folder, 'incoming', name), 'half')
    const yesterday = new Date(Date.now() - 86_400_000)
    await utimes(path.join(folder, 'incoming/abandoned'), yesterday, yesterday)
    await openFolderStore(folder).put('captures/a.png', Buffer.from('x'), 'image/png')
    expect((await filesIn(folder)).sort()).toEqual(['captures/a.png', 'incoming/being-written'])
  })

  test('keeps objects under their keys, and readers never see half of one', async () => {
    const folder = await temporaryFolder()
    const store = openFolderStore(folder)
    const old = Buffer.alloc(2_000_000, 'a')
    await store.put('captures/a.png', old, 'image/png')
    const writing = store.put('captures/a.png', Buffer.alloc(2_000_000, 'b'), 'image/png')
    const seen = await readFile(path.join(folder, 'captures/a.png'))
    await writing
    expect([0x61, 0x62].some((byte) => seen.every((other) => other === byte)) && seen.length).toBe(2_000_000)
  })

  test('a file where a folder has to be is a clear error', async () => {
    const folder = await temporaryFolder()
    await (await open(path.join(folder, 'captures'), 'w')).close()
    const store = openFolderStore(folder)
    await expect(store.put('captures/a.png', Buffer.from('x'), 'image/png')).rejects.toMatchObject({
      code: 'STORE_DENIED',
    })
    await expect(store.get('captures/a.png')).rejects.toMatchObject({ code: 'STORE_DENIED' })
  })

  async function filesIn(folder: string): Promise<string[]> {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true })
    return entries
      .filter((entry) => entry.isFile())
      .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)))
  }
})

describe('the S3 store', () => {
  test('a bucket that does not exist is a clear error', async () => {
    const store = openS3Store('nothing-here', endpoint())
    onTestFinished(() => store.close())
    await expect(store.put('captures/a.png', Buffer.from('x'), 'image/png')).rejects.toMatchObject({
      code: 'STORE_DENIED',
      message: expect.stringContaining('SCOUT_S3_BUCKET'),
    })
  })

  test('a region that is missing is a clear error', async () => {
    for (const [name, value] of [
      ['AWS_REGION', undefined],
      ['AWS_CONFIG_FILE', '/dev/null'],
    ] as const)
      vi.stubEnv(name, value)
    onTestFinished(() => void vi.stubEnv('AWS_REGION', 'eu-central-1'))
    const store = openS3Store('captures', endpoint())
    onTestFinished(() => store.close())
    await expect(store.get('captures/a.png')).rejects.toMatchObject({
      code: 'STORE_DENIED',
      message: expect.stringContaining('AWS_REGION'),
    })
  })

  test('a server that is away is a passing error', async () => {
    const store = openS3Store('captures', 'http://127.0.0.1:1')
    onTestFinished(() => store.close())
    await expect(store.get('captures/a.png')).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringContaining('ECONNREFUSED'),
    })
  })

  test('the signal ends a download that hangs in the middle', async () => {
    const server = createServer((_, response) =>
      response.writeHead(200, { 'content-length': 100 }).write('half'),
    )
    await once(server.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => {
      server.closeAllConnections()
      server.close()
    })
    const store = openS3Store('captures', `http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    onTestFinished(() => store.close())
    const controller = new AbortController()
    const reading = store.get('captures/a.png', controller.signal)
    await once(server, 'request')
    const reason = new Error('timeout of the call')
    controller.abort(reason)
    await expect(reading).rejects.toBe(reason)
  })
})
