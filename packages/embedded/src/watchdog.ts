import { existsSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { accountFor } from './account.ts'
import { withDirectoryLock } from './directory-lock.ts'
import { layoutOf } from './layout.ts'
import { stopPostmaster } from './postmaster.ts'
import { hasLivingUsers } from './users.ts'
import { beat, forgetWatchdog, isReplaced } from './watchdog-process.ts'

const POLL_MILLISECONDS = 1000
// A user killed in the moment of a start leaves a server that cannot be seen yet: it is looked for some more times.
const LAST_LOOKS = 3

const layout = layoutOf(process.argv[2]!)
const account = accountFor(layout.directory)
let looks = 0
let lastProblem = ''

// When the directory is deleted under the server, Postgres notices within a minute and ends, so there is nothing to do.
while (existsSync(layout.users) && looks < LAST_LOOKS) {
  await delay(POLL_MILLISECONDS)
  try {
    if (await isReplaced(layout)) break
    await beat(layout)
    looks = (await hasLivingUsers(layout)) ? 0 : await stopUnused(looks + 1)
  } catch (error) {
    report(error)
  }
}

/** Looks again with the lock held, since a user may just be arriving. Returns how often nobody was there. */
async function stopUnused(look: number): Promise<number> {
  return withDirectoryLock(layout, account, async () => {
    if (await hasLivingUsers(layout)) return 0
    await stopPostmaster(layout)
    if (look === LAST_LOOKS) await forgetWatchdog(layout)
    return look
  })
}

/** A full disk must not end the watch; the same words every second must not fill it further. */
function report(error: unknown): void {
  const problem = String(error)
  if (problem !== lastProblem && existsSync(layout.users))
    console.error('The watchdog will try again:', error)
  lastProblem = problem
}
