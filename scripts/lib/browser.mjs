// A person at a browser, and the program that sent them there and waits for them to come back.

import { createServer } from 'node:http'
import { chromium } from 'playwright-core'
import { holds, within } from './checks.mjs'

export const STEP_MS = 6_000

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
      ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
      // No name is looked up: an address elsewhere is one that the browser was sent to, no more.
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost',
    ],
  })
}

// Calls `body` with a browser without cookies and a list of all that its pages complain about.
export async function asStranger(browser, body, options = {}) {
  const context = await browser.newContext(options)
  context.setDefaultTimeout(STEP_MS)
  const complaints = []
  context.on('console', (message) => {
    if (/content.security.policy|refused to/i.test(message.text())) complaints.push(message.text())
  })
  context.on('weberror', (error) => complaints.push(String(error.error())))
  try {
    return await body(context, complaints)
  } finally {
    await within(STEP_MS, context.close()).catch(() => {})
  }
}

// The server of an installed program: listens on a loopback port for its user's return.
// Keeps what it was `asked`, and sends the browser on to the address that is set as `redirectOn`, or shows `page`.
export async function returnAddress() {
  const home = { asked: [], redirectOn: null, page: null }
  const server = createServer((request, response) => {
    home.asked.push(request)
    if (home.redirectOn) return response.writeHead(302, { Location: home.redirectOn }).end()
    response.setHeader('Content-Type', 'text/html; charset=utf-8')
    response.end(
      home.page ?? '<!doctype html><html lang="en"><title>Back</title><h1>You can close this page</h1></html>',
    )
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = () => server.closeAllConnections() ?? server.close()
  return Object.assign(home, { port: server.address().port, close })
}

// Goes to `url`, logs in and decides where asked, and gives the address at which the browser comes back.
// `act` may do the steps in another way: by the keyboard alone, say.
export async function authorize(context, url, redirectUri, person, act = {}) {
  const { login = typeIn, consent = (page) => page.getByRole('button', { name: 'Allow' }).click() } = act
  const page = await context.newPage() // closed with all of `context`: a page that still loads may never be
  let came
  const back = page
    .waitForRequest((request) => request.url().startsWith(redirectUri), { timeout: 4 * STEP_MS })
    .then((request) => (came = request.url()))
  back.catch(() => {})
  await page.goto(String(url)).catch(() => {}) // where the browser is sent at last need not answer
  for (const seen = []; !came;) {
    const step = await where(page, back)
    if (step === 'back') break
    holds(!seen.includes(step), `the ${step} page came twice; it says ${await alertOf(page)}`)
    seen.push(step)
    const gone = page.waitForEvent('framenavigated').catch(() => {})
    await (step === 'login' ? login(page, person) : consent(page))
    await Promise.race([back, gone])
    if (!came) await page.waitForLoadState('load', { timeout: 2000 }).catch(() => {})
  }
  return new URL(await back)
}

async function where(page, back) {
  const step = await Promise.race([
    back.then(() => 'back'),
    page
      .locator('input[name=password]')
      .waitFor()
      .then(() => 'login'),
    page
      .locator('button[name=decision]')
      .first()
      .waitFor()
      .then(() => 'consent'),
  ]).catch(() => null)
  if (step) return step
  const text = await page
    .locator('body')
    .innerText()
    .catch(() => '')
  throw new Error(`neither a login nor a consent page at ${page.url().split('?')[0]}: ${text.slice(0, 300)}`)
}

async function alertOf(page) {
  return (await page.locator('[role=alert]').allInnerTexts()).join(' ') || 'nothing'
}

export async function typeIn(page, person) {
  await page.getByLabel('Username', { exact: true }).fill(person.username)
  await page.getByLabel('Password', { exact: true }).fill(person.password)
  await page.getByRole('button', { name: 'Log in' }).click()
}
