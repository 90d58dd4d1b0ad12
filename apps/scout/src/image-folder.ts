import { constants } from 'node:fs'
import { type FileHandle, open, readdir, realpath, stat } from 'node:fs/promises'
import path from 'node:path'

/**
 * What is wrong with a path that a person gave or that was found under it:
 * `FOLDER_MISSING`, `FOLDER_NOT_A_FOLDER`, `FOLDER_UNREADABLE`, `FOLDER_EMPTY` (no images in it), `LINK_BROKEN` (a
 * symbolic link to nothing), `FILE_MISSING`, `FILE_UNREADABLE`, `FILE_TOO_LARGE`.
 */
export type PathProblemCode =
  | 'FOLDER_MISSING'
  | 'FOLDER_NOT_A_FOLDER'
  | 'FOLDER_UNREADABLE'
  | 'FOLDER_EMPTY'
  | 'LINK_BROKEN'
  | 'FILE_MISSING'
  | 'FILE_UNREADABLE'
  | 'FILE_TOO_LARGE'

/** A problem as a value: what happened and what to do, for the person who named the path. */
export interface PathProblem {
  readonly code: PathProblemCode
  readonly path: string
  readonly message: string
}

/** The images found, in a stable order, and what could not be looked at. Without files there is always a problem. */
export interface ImageListing {
  readonly files: readonly string[]
  readonly problems: readonly PathProblem[]
}

/** Bytes of a file, or the reason why there are none. */
export type FileContent =
  | { readonly ok: true; readonly bytes: Uint8Array }
  | { readonly ok: false; readonly problem: PathProblem }

const IMAGE_NAME = /\.(jpe?g|png|webp)$/i
const LARGEST_FILE = 512 * 1024 * 1024
// Where a name is no UTF-8, Node shows this for its bytes, and finds nothing of that name.
const NO_UTF8 = '\uFFFD'
const RENAME = 'has a name that is not UTF-8, as from an old disk or archive. Rename it.'

/**
 * Lists the images in a folder and the folders in it, by name: .jpg, .jpeg, .png, .webp in any case. Symbolic links
 * are followed, each real folder once, so loops end. Names that begin with a dot are left out.
 *
 * Never rejects for what is on the disk: problems are values, and one unreadable subfolder does not hide the rest.
 */
export async function listImages(folder: string): Promise<ImageListing> {
  const root = path.resolve(folder)
  const found: Found = { files: [], problems: [], folders: new Set() }
  await walk(root, found)
  if (found.files.length === 0 && found.problems.length === 0) {
    found.problems.push(
      problem(
        'FOLDER_EMPTY',
        root,
        'has no images in it. Scout looks for .jpg, .jpeg, .png and .webp files.',
      ),
    )
  }
  return {
    files: found.files.sort(byCodeUnit),
    problems: found.problems.sort((a, b) => byCodeUnit(a.path, b.path)),
  }
}

interface Found {
  files: string[]
  problems: PathProblem[]
  /** Real paths of the folders already looked at. */
  folders: Set<string>
}

async function walk(folder: string, found: Found): Promise<void> {
  try {
    const real = await realpath(folder)
    if (found.folders.has(real)) return
    found.folders.add(real)
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      if (entry.name.startsWith('.')) continue
      const child = path.join(folder, entry.name)
      if (entry.isSymbolicLink()) await followLink(child, found)
      else if (entry.isDirectory()) await walk(child, found)
      else if (entry.isFile() && IMAGE_NAME.test(entry.name)) found.files.push(child)
    }
  } catch (error) {
    found.problems.push(folderProblem(folder, error))
  }
}

async function followLink(link: string, found: Found): Promise<void> {
  const target = await stat(link).catch((error) => errnoOf(error))
  if (typeof target === 'string') {
    const reason = target === 'ELOOP' ? 'leads back to itself' : 'leads to nothing that can be read'
    found.problems.push(
      problem('LINK_BROKEN', link, `is a symbolic link that ${reason} (${target}). Remove or repair it.`),
    )
  } else if (target.isDirectory()) await walk(link, found)
  else if (target.isFile() && IMAGE_NAME.test(link)) found.files.push(link)
}

/**
 * Reads a file that may have vanished or changed since it was listed. Files over 512 MB are refused, since a whole
 * image has to be in memory.
 */
export async function readImageFile(file: string): Promise<FileContent> {
  const refuse = (code: PathProblemCode, message: string): FileContent => ({
    ok: false,
    problem: problem(code, file, message),
  })
  let handle: FileHandle | undefined
  try {
    // Without O_NONBLOCK, opening a pipe that replaced the file would wait for ever.
    handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK)
    const facts = await handle.stat()
    if (!facts.isFile()) return refuse('FILE_UNREADABLE', 'is not a file.')
    if (facts.size > LARGEST_FILE) {
      const megabytes = Math.ceil(facts.size / 2 ** 20)
      return refuse(
        'FILE_TOO_LARGE',
        `has ${megabytes} MB; at most 512 MB can be read. Scale the image down.`,
      )
    }
    return { ok: true, bytes: await handle.readFile() }
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === 'ENOENT' && file.includes(NO_UTF8)) return refuse('FILE_UNREADABLE', RENAME)
    if (errno === 'ENOENT') return refuse('FILE_MISSING', 'does not exist any more.')
    return refuse('FILE_UNREADABLE', `cannot be read (${errno}). Check its permissions and the disk.`)
  } finally {
    await handle?.close()
  }
}

function folderProblem(folder: string, error: unknown): PathProblem {
  const errno = errnoOf(error)
  if (errno === 'ENOENT' && folder.includes(NO_UTF8)) return problem('FOLDER_UNREADABLE', folder, RENAME)
  if (errno === 'ENOENT') return problem('FOLDER_MISSING', folder, 'does not exist. Check the path.')
  if (errno === 'ENOTDIR')
    return problem('FOLDER_NOT_A_FOLDER', folder, 'is not a folder. Give the folder that the images are in.')
  return problem(
    'FOLDER_UNREADABLE',
    folder,
    `cannot be read (${errno}). Give this user permission to read it.`,
  )
}

function problem(code: PathProblemCode, file: string, message: string): PathProblem {
  return { code, path: file, message: `${file} ${message}` }
}

function errnoOf(error: unknown): string {
  if (error instanceof Error && 'code' in error) return String(error.code)
  throw error
}

// Not by locale: the order must be the same on every machine.
function byCodeUnit(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
