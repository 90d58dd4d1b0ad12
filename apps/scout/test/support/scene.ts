import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import sharp from 'sharp'
import { contentHash, prepareForModel } from '../../src/images.ts'
import type { ModelServer } from './model-server.ts'
import { spawnModelServer } from './model-server-process.ts'
import { type ScoutProcess, spawnScout } from './scout-process.ts'
import { temporaryFolder, type WhenFinished } from './temporary-folder.ts'
import { type TestDatabase, testDatabase } from './test-database.ts'

/** A folder of images, a database, a model server, and the settings that make Scout use them. */
export interface Scene {
  readonly folder: string
  readonly data: string
  readonly database: TestDatabase
  readonly model: ModelServer
  readonly env: Readonly<Record<string, string>>
  /** Starts `scout analyze FOLDER`. */
  analyze(env?: Readonly<Record<string, string>>): ScoutProcess
  /** Starts `scout ARGUMENTS`. */
  scout(args: readonly string[], env?: Readonly<Record<string, string>>): ScoutProcess
  /** What the model server knows a file by. */
  sentHash(name: string): Promise<string>
}

/** Sets the scene for one test, with so many images. */
export async function setScene(images: number, whenFinished: WhenFinished): Promise<Scene> {
  const root = await temporaryFolder(whenFinished)
  const [folder, data] = [path.join(root, 'images'), path.join(root, 'data')]
  await mkdir(folder)
  await writeImages(folder, images)
  const model = await spawnModelServer()
  whenFinished(() => model.stop())
  const database = await testDatabase(whenFinished)
  const env = {
    DATABASE_URL: database.url,
    SCOUT_DATA: data,
    SCOUT_MODEL: 'compatible:test',
    SCOUT_MODEL_URL: model.url,
  }
  const scout: Scene['scout'] = (args, over = {}) =>
    spawnScout(args, whenFinished, { env: { ...env, ...over } })
  return {
    folder,
    data,
    database,
    model,
    env,
    analyze: (over) => scout(['analyze', folder], over),
    scout,
    sentHash: (name) => sentHash(path.join(folder, name)),
  }
}

/** Small images, all different from each other and from those of any other test: `00.jpg`, `01.png`, `02.webp`, … */
async function writeImages(folder: string, count: number): Promise<void> {
  await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const [kind, extension] = (
        [
          ['jpeg', 'jpg'],
          ['png', 'png'],
          ['webp', 'webp'],
        ] as const
      )[index % 3]!
      const name = `${String(index).padStart(2, '0')}.${extension}`
      await writeFile(path.join(folder, name), await smallImage(kind))
    }),
  )
}

/** An image that no other test has. */
export async function smallImage(kind: 'jpeg' | 'png' | 'webp' = 'png'): Promise<Buffer> {
  const raw = { width: 16, height: 12, channels: 3 as const }
  return sharp(randomBytes(16 * 12 * 3), { raw })
    .toFormat(kind)
    .toBuffer()
}

async function sentHash(file: string): Promise<string> {
  return contentHash((await prepareForModel(await readFile(file))).bytes)
}
