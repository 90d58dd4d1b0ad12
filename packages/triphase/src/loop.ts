/**
 * Runs `pass` again and again, never twice at a time. Each pass says how long to wait before the next; `wake` ends the
 * wait. Starting twice, stopping twice and stopping before starting are harmless; `stop` waits for the running pass.
 */
export class Loop {
  readonly #pass: () => Promise<number>
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #again = false
  #started = false

  /** @param pass one round; returns milliseconds until the next. It handles its own errors. */
  constructor(pass: () => Promise<number>) {
    this.#pass = pass
  }

  start(): void {
    if (this.#started) return
    this.#started = true
    if (this.#running) this.#again = true
    else this.#run()
  }

  /** The next pass begins at once, or as soon as the running one has ended. */
  wake(): void {
    if (!this.#started) return
    if (this.#running) this.#again = true
    else this.#run()
  }

  async stop(): Promise<void> {
    this.#started = false
    clearTimeout(this.#timer)
    await this.#running
  }

  #run(): void {
    clearTimeout(this.#timer)
    this.#again = false
    this.#running = this.#pass().then((waitMs) => {
      this.#running = undefined
      if (!this.#started) return
      if (this.#again) this.#run()
      else this.#timer = setTimeout(() => this.#run(), waitMs)
    })
  }
}
