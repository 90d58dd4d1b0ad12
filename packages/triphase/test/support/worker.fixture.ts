// What the tests of processes and of the counting API run as a process of its own.
const [, , what, argument] = process.argv

if (what === 'print') {
  process.stdout.write(`ready ${argument}\nsecond line\n`)
  process.stderr.write(`on stderr, with ${process.env.FIXTURE_VALUE}\n`)
  process.stdout.write('last, without a line end')
  process.exitCode = 3
}

if (what === 'wait') {
  process.on('SIGTERM', () => {
    process.stdout.write('asked to stop\n', () => process.exit(0))
  })
  setInterval(() => {}, 1000)
  process.stdout.write('waiting\n')
}

if (what === 'call') {
  await fetch(`${argument}/call`, { method: 'POST', body: JSON.stringify({ key: 'fixture' }) })
}

if (what === 'conditions') process.stdout.write(`${process.execArgv.join(' ')}\n`)
