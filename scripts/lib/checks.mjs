// Named checks, each reported on a line, and their count on the last: checks.py for JavaScript.

const CHECK_MS = 60_000

export class Checks {
  passed = 0
  failed = 0

  // Runs one check; it fails by throwing, or by not being done in time. Tells whether it passed.
  async run(name, body) {
    const began = Date.now()
    try {
      await within(CHECK_MS, body())
    } catch (error) {
      this.failed += 1
      console.log(`FAILED ${name}\n       ${describe(error)}`)
      return false
    }
    this.passed += 1
    console.log(`ok     ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`)
    return true
  }

  finish() {
    console.log(`${this.passed} passed, ${this.failed} failed`)
    process.exit(this.failed || !this.passed ? 1 : 0)
  }
}

class Failed extends Error {}

export function equal(found, wanted, what) {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) {
    throw new Failed(`${what}: ${short(found)} instead of ${short(wanted)}`)
  }
}

export function holds(condition, what) {
  if (!condition) throw new Failed(what)
}

// What an earlier check has brought, or why this one cannot be made.
export function from(earlier, what) {
  if (earlier === undefined || earlier === null)
    throw new Failed(`${what} is missing: a check before this one failed`)
  return earlier
}

// The error with which `promise` must fail.
export async function refusal(promise, what) {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Failed(`${what}: not refused`)
}

export function within(ms, promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Failed(`not done within ${ms / 1000} s`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

export function short(value, length = 600) {
  const text = typeof value === 'string' ? value : String(JSON.stringify(value))
  return text.length <= length ? text : `${text.slice(0, length)}… (${text.length} characters)`
}

function describe(error) {
  if (error instanceof Failed) return error.message
  const about = [error?.code, error?.error, error?.error_description, error?.cause?.message].filter(Boolean)
  const where = String(error?.stack ?? '')
    .split('\n')
    .find((line) => line.includes('/scripts/'))
  return [short(String(error)), ...about, where?.trim()].filter(Boolean).join('\n       ')
}
