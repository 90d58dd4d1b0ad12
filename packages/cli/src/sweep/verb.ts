import type { Command } from 'commander'
import type { Sweep, SweepControl } from 'triphase'
import type { ConfiguredEngine } from '../config-file.ts'
import type { ExitCode } from '../exit-codes.ts'
import type { Output } from '../output.ts'

/** What the work of a verb is done with. */
export interface SweepContext {
  readonly name: string
  readonly sweep: Sweep
  readonly control: SweepControl
  readonly engine: ConfiguredEngine
  /** What the config file exports as `pool`, if anything. */
  readonly pool: unknown
  readonly output: Output
  /** The command line of another verb of this sweep, as it would be typed here. */
  command(verb: string): string
}

export type SweepWork = (context: SweepContext) => Promise<ExitCode>

/** A word after `triphase sweep NAME`. A new one is a file beside this one and a line in the table of verbs. */
export interface SweepVerb {
  readonly name: string
  /** Adds description, arguments and options. */
  define(command: Command): Command
  /**
   * Checks what was typed, before anything is opened.
   *
   * @returns what is to be done.
   * @throws {Problem} for arguments that do not go together.
   */
  read(command: Command): SweepWork
}
