import { randomBytes } from 'node:crypto'
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Account } from './account.ts'
import type { Layout } from './layout.ts'
import { isAlive, ownIdentity } from './process-identity.ts'

/** Notes that this process uses the server, until {@link removeUser} or the end of the process. */
export async function addUser(layout: Layout, account: Account): Promise<string> {
  const user = `${ownIdentity()}-${randomBytes(6).toString('hex')}`
  await mkdir(layout.users, { recursive: true, mode: 0o700 })
  await account.give(layout.users)
  await writeFile(join(layout.users, user), '')
  await account.give(join(layout.users, user))
  return user
}

export async function removeUser(layout: Layout, user: string): Promise<void> {
  await rm(join(layout.users, user), { force: true })
}

/** Forgets the users whose process has ended, and says whether any is left. */
export async function hasLivingUsers(layout: Layout): Promise<boolean> {
  const users = await readdir(layout.users)
  const ended = users.filter((user) => !isAlive(user.slice(0, user.lastIndexOf('-'))))
  await Promise.all(ended.map((user) => removeUser(layout, user)))
  return ended.length < users.length
}
