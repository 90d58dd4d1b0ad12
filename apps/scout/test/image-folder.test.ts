import { execFileSync } from 'node:child_process'
import { chmod, mkdir, symlink, truncate, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { listImages, readImageFile } from '../src/image-folder.ts'
import { temporaryFolder } from './support/temporary-folder.ts'

async function folderWith(...files: string[]): Promise<string> {
  const folder = await temporaryFolder()
  for (const file of files) {
    await mkdir(path.dirname(path.join(folder, file)), { recursive: true })
    await writeFile(path.join(folder, file), file)
  }
  return folder
}

/** Root may read everything, so what root cannot read is tried as nobody. */
async function asOrdinaryUser<T>(act: () => Promise<T>): Promise<T> {
  const root = process.geteuid?.() === 0
  if (root) process.seteuid?.(65_534)
  try {
    return await act()
  } finally {
    if (root) process.seteuid?.(0)
  }
}

// macOS refuses such names.
test.runIf(process.platform === 'linux')('a name that is not UTF-8 is told as that', async () => {
  const folder = await temporaryFolder()
  const latin1 = (name: string) => Buffer.concat([Buffer.from(`${folder}/`), Buffer.from(name, 'latin1')])
  await mkdir(latin1('gr\u00fcn'))
  await writeFile(latin1('gr\u00fcn.png'), 'x')
  const { files, problems } = await listImages(folder)
  const reason = 'has a name that is not UTF-8, as from an old disk or archive. Rename it.'
  expect(problems.map(({ message }) => message)).toEqual([`${folder}/gr\uFFFDn ${reason}`])
  expect(await readImageFile(files[0]!)).toMatchObject({
    ok: false,
    problem: { code: 'FILE_UNREADABLE', message: `${folder}/gr\uFFFDn.png ${reason}` },
  })
})

describe('listing a folder', () => {
  test('finds images in it and below, in any case, in a stable order', async () => {
    const folder = await folderWith(
      'b.JPG',
      'a.png',
      'sub/deep/c.WebP',
      'sub/d.jpeg',
      'notes.txt',
      'jpg',
      '.hidden/e.png',
      '.f.png',
    )
    const { files, problems } = await listImages(folder)
    expect(files.map((file) => path.relative(folder, file))).toEqual([
      'a.png',
      'b.JPG',
      'sub/d.jpeg',
      'sub/deep/c.WebP',
    ])
    expect(problems).toEqual([])
  })

  test('follows links, each folder once, and survives loops', async () => {
    const folder = await folderWith('real/a.png')
    await symlink(folder, path.join(folder, 'real', 'loop'))
    await symlink(path.join(folder, 'real'), path.join(folder, 'zweite'))
    await symlink(path.join(folder, 'real/a.png'), path.join(folder, 'link.png'))
    await symlink('self', path.join(folder, 'self'))
    await symlink('nothing', path.join(folder, 'nowhere.png'))
    const { files, problems } = await listImages(folder)
    expect(files.map((file) => path.relative(folder, file))).toEqual(['link.png', 'real/a.png'])
    expect(problems.map(({ code, path: where }) => [code, path.basename(where)])).toEqual([
      ['LINK_BROKEN', 'nowhere.png'],
      ['LINK_BROKEN', 'self'],
    ])
  })

  test('a missing folder, a file and an empty folder are problems with a message', async () => {
    const folder = await folderWith('notes.txt')
    const problemOf = async (name: string) => (await listImages(path.join(folder, name))).problems[0]
    expect(await problemOf('missing')).toMatchObject({
      code: 'FOLDER_MISSING',
      message: expect.stringContaining('does not exist'),
    })
    expect(await problemOf('notes.txt')).toMatchObject({ code: 'FOLDER_NOT_A_FOLDER' })
    expect(await problemOf('notes.txt/deeper')).toMatchObject({ code: 'FOLDER_NOT_A_FOLDER' })
    expect(await problemOf('.')).toMatchObject({
      code: 'FOLDER_EMPTY',
      message: expect.stringContaining('.jpg'),
    })
    expect((await listImages(folder)).files).toEqual([])
  })

  test('an unreadable folder is a problem, and does not hide the others', async () => {
    const folder = await folderWith('a.png', 'locked/b.png')
    await chmod(path.join(folder, 'locked'), 0o000)
    const { files, problems } = await asOrdinaryUser(() => listImages(folder))
    expect(files.map((file) => path.basename(file))).toEqual(['a.png'])
    expect(problems).toMatchObject([{ code: 'FOLDER_UNREADABLE', path: path.join(folder, 'locked') }])
    expect((await asOrdinaryUser(() => listImages(path.join(folder, 'locked')))).problems).toMatchObject([
      { code: 'FOLDER_UNREADABLE' },
    ])
    await chmod(path.join(folder, 'locked'), 0o755)
  })
})

describe('reading a file', () => {
  test('gives its bytes', async () => {
    const file = path.join(await folderWith('a.png'), 'a.png')
    expect(await readImageFile(file)).toEqual({ ok: true, bytes: Buffer.from('a.png') })
  })

  test('a file that vanished, may not be read, is no file or is too large is a problem', async () => {
    const folder = await folderWith('locked.png', 'large.png')
    await chmod(path.join(folder, 'locked.png'), 0o000)
    await truncate(path.join(folder, 'large.png'), 600 * 2 ** 20)
    execFileSync('mkfifo', [path.join(folder, 'pipe.png')])
    const codeOf = async (name: string) => {
      const content = await asOrdinaryUser(() => readImageFile(path.join(folder, name)))
      return content.ok ? 'read' : content.problem.code
    }
    expect(await codeOf('gone.png')).toBe('FILE_MISSING')
    expect(await codeOf('locked.png')).toBe('FILE_UNREADABLE')
    expect(await codeOf('.')).toBe('FILE_UNREADABLE')
    expect(await codeOf('pipe.png')).toBe('FILE_UNREADABLE')
    expect(await codeOf('large.png')).toBe('FILE_TOO_LARGE')
  })
})
