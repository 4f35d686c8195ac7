// A person at a browser: the login and the consent page, and the ways through them.

import { readFileSync } from 'node:fs'
import * as openid from 'openid-client'
import { STEP_MS, asStranger, authorize, returnAddress, typeIn } from '../../lib/browser.mjs'
import { equal, from, holds, refusal } from '../../lib/checks.mjs'
import { judgeHeaders, judgePage } from './pages.mjs'
import { ISSUER, PERSON, create, notebookRequest, notebookTokens, redeem, state, statusOf } from './world.mjs'

const COMPLAINT_MS = 300 // by which a browser has said that it refuses to go on

export async function loginPage(checks, browser) {
  return asStranger(browser, async (context, complaints) => {
    const page = await context.newPage()
    const answer = await page.goto(String((await notebookRequest()).url))
    const there = await checks.run('login page: says who may ask for what', async () => {
      equal(answer.status(), 200, 'status')
      judgeHeaders(answer.headers())
      for (const cookie of await context.cookies()) {
        holds(
          cookie.httpOnly && /Lax|Strict/.test(cookie.sameSite),
          `the cookie ${cookie.name} is not HttpOnly and SameSite`,
        )
        holds(!cookie.secure && !cookie.name.startsWith('__'), `the cookie ${cookie.name} wants https`)
      }
      await page.getByLabel('Username', { exact: true }).waitFor()
    })
    if (!there) return
    await checks.run('login page: browsers know its fields', async () => {
      for (const [label, complete, type] of [
        ['Username', 'username', 'text'],
        ['Password', 'current-password', 'password'],
      ]) {
        const field = page.getByLabel(label, { exact: true })
        equal(await field.getAttribute('autocomplete'), complete, `autocomplete of ${label}`)
        equal((await field.getAttribute('type')) ?? 'text', type, `type of ${label}`)
      }
    })
    await judgePage(checks, 'login page', page, complaints)
    const said = []
    for (const username of [PERSON.username, 'nobody-has-this-name']) {
      await checks.run(`login page: a wrong password is told, ${username}`, async () => {
        const gone = page.waitForEvent('framenavigated')
        await typeIn(page, { username, password: 'not the password' })
        await gone // what is there now is the answer to this attempt
        const alert = page.locator('[role=alert]')
        await alert.waitFor()
        said.push(await alert.innerText())
        holds(said.at(-1).trim(), 'the alert is empty')
        const text = await page.content()
        holds(!text.includes('not the password') && !said.at(-1).includes(username), 'it repeats what was typed')
        equal(await page.getByLabel('Password', { exact: true }).inputValue(), '', 'what is in the password field')
      })
    }
    await checks.run('login page: a wrong name sounds like a wrong password', () =>
      equal(said[1], from(said[0], 'the alert'), 'alert'),
    )
    await judgePage(checks, 'login page with an error', page, complaints)
  })
}

export async function consentPage(checks, browser) {
  return asStranger(browser, async (context, complaints) => {
    const page = await context.newPage()
    await page.goto(String((await notebookRequest({ scope: 'openid email predict models:read' })).url))
    const there = await checks.run('consent page: names the client and what it asks for, in words', async () => {
      await typeIn(page, PERSON)
      await page.locator('button[name=decision][value=allow]').waitFor()
      const text = await page.locator('main').innerText()
      holds(text.includes('Notebook of the team'), 'the client is not named')
      const scopes = await page.locator('main li').allInnerTexts()
      holds(scopes.length >= 3, `only ${scopes.length} things in the list`)
      equal(
        scopes.filter((one) => !/\w+ \w+/.test(one)),
        [],
        'what is not said in words',
      )
      equal(
        await page
          .locator('button[name=decision]')
          .allInnerTexts()
          .then((all) => all.sort()),
        ['Allow', 'Deny'],
        'buttons',
      )
    })
    if (there) await judgePage(checks, 'consent page', page, complaints)
  })
}

// What people see of themselves: logged in, and asked whether to log out.
export async function ownPages(checks, browser) {
  return asStranger(browser, async (context, complaints) => {
    await notebookTokens(context)
    const page = await context.newPage()
    for (const [name, path, heading] of [
      ['account page', '/oauth2/login', 'You are logged in'],
      ['logout page', '/oauth2/end-session', 'Log out?'],
    ]) {
      await page.goto(ISSUER + path)
      await page.getByRole('heading', { name: heading, exact: true }).waitFor()
      await judgePage(checks, name, page, complaints)
    }
  })
}

export async function loggedOut(browser) {
  return asStranger(browser, async (context) => {
    const tokens = await notebookTokens(context)
    const bye = `http://127.0.0.1:${state.home.port}/bye`
    const page = await context.newPage()
    const back = page.waitForRequest((one) => one.url().startsWith(bye))
    const url = openid.buildEndSessionUrl(state.publicConfig, {
      id_token_hint: tokens.id_token,
      post_logout_redirect_uri: bye,
      state: 'after the logout',
    })
    await page.goto(String(url))
    equal(new URL((await back).url()).searchParams.get('state'), 'after the logout', 'state')
    const request = await notebookRequest({ prompt: 'none' })
    const silent = await authorize(context, request.url, state.loopback, PERSON)
    equal(silent.searchParams.get('error'), 'login_required', 'error after the logout')
  })
}

// The page in the documentation, served at another port: a public client that runs in the browser.
export async function inThePage(browser) {
  const documentation = readFileSync(process.env.DOCUMENTATION, 'utf8')
  const [, shown] = from(documentation.match(/```html\n(.*?)```/s), 'the page in docs/OAUTH.md')
  const own = await returnAddress()
  const home = `http://localhost:${own.port}/`
  const client = await create('/v1/oauth-clients', {
    name: 'My application',
    redirect_uris: [home],
    grant_types: ['authorization_code'],
    scopes: ['openid', 'profile', 'predict'],
    public: true,
  })
  own.page = shown.replace('http://127.0.0.1:8080', ISSUER).replace('06H02AB3M8RT5VXD', client.client_id)
  try {
    await asStranger(browser, async (context, complaints) => {
      const page = await context.newPage()
      await page.goto(home)
      await page.getByRole('button', { name: 'Log in' }).click()
      await typeIn(page, PERSON)
      await page.getByRole('button', { name: 'Allow' }).click()
      await page.getByText('Hello, Data Scientist', { exact: true }).waitFor()
      equal(page.url(), home, 'address')
      equal(complaints, [], 'complaints of the browser')
      // At an origin of no client the same page can read nothing.
      await page.goto(`http://127.0.0.1:${own.port}/`)
      const read = (path) => fetch(path).then(() => 'read', () => 'refused')
      equal(await page.evaluate(read, `${ISSUER}/.well-known/openid-configuration`), 'refused', 'another origin')
    })
  } finally {
    own.close()
  }
}

// Tab until the focus is on what `selector` names.
async function tabTo(page, selector) {
  for (let presses = 0; presses < 40; presses += 1) {
    if (await page.locator(selector).evaluate((one) => one === document.activeElement)) return
    await page.keyboard.press('Tab')
  }
  throw new Error(`Tab does not reach ${selector}`)
}

export async function byKeyboard(browser) {
  return asStranger(browser, async (context, complaints) => {
    const request = await notebookRequest()
    const back = await authorize(context, request.url, state.loopback, PERSON, {
      login: async (page, person) => {
        await tabTo(page, 'input[name=username]')
        await page.keyboard.type(person.username)
        await page.keyboard.press('Tab')
        await tabTo(page, 'input[name=password]')
        await page.keyboard.type(person.password)
        await page.keyboard.press('Enter')
      },
      consent: async (page) => {
        await tabTo(page, 'button[name=decision][value=allow]')
        await page.keyboard.press('Enter')
      },
    })
    equal(back.searchParams.get('state'), request.state, 'state')
    equal(back.searchParams.get('iss'), ISSUER, 'iss')
    holds(back.searchParams.get('code'), 'no code')
    holds(!back.hash, 'something in the fragment')
    equal(complaints, [], 'complaints of the browser')
    state.tokens = await redeem(request, back)
  })
}

export async function withoutScripts(browser) {
  return asStranger(
    browser,
    async (context) => {
      const tokens = await notebookTokens(context)
      equal(await statusOf(tokens.access_token), 200, '/v1/me')
    },
    { javaScriptEnabled: false },
  )
}

// The application's address redirects on: to another origin, or to an app by its own scheme. Browsers hold
// every redirect that follows a form against the policy of the page with the form.
export async function redirectedOn(browser) {
  const elsewhere = `http://localhost:${state.beyond.port}/in`
  for (const place of [elsewhere, 'com.example.app:/in']) {
    for (const decision of ['Allow', 'Deny']) {
      await asStranger(browser, async (context, complaints) => {
        const request = await notebookRequest()
        const page = await context.newPage()
        const last = place === elsewhere ? state.beyond : state.home
        const times = () => last.asked.filter(({ url }) => /^\/(in|callback)/.test(url)).length
        const before = times()
        state.home.redirectOn = place
        try {
          await page.goto(String(request.url))
          await typeIn(page, PERSON)
          await page.getByRole('button', { name: decision }).click()
          await until(() => times() > before, `the way to ${place}`)
          await page.waitForTimeout(COMPLAINT_MS)
        } finally {
          state.home.redirectOn = null
        }
        equal(complaints, [], `complaints of the browser on the way to ${place}`)
        const told = [state.home, state.beyond].flatMap((one) => one.asked.map(({ headers }) => headers.referer))
        equal(told.filter((one) => one?.startsWith(ISSUER)), [], 'where the browser says that it comes from')
      })
    }
  }
}

async function until(holdsNow, what) {
  const end = Date.now() + STEP_MS
  while (!holdsNow()) {
    holds(Date.now() < end, `${what} is not gone in time`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

// An application by the scheme of an app: the browser cannot open it here, but must be sent there, and the
// page that stays says where it leads.
export async function toAnApp(browser) {
  return asStranger(browser, async (context, complaints) => {
    const request = await notebookRequest({ redirect_uri: 'com.example.notebook:/callback' })
    const page = await context.newPage()
    await page.goto(String(request.url))
    await typeIn(page, PERSON)
    await page.getByRole('button', { name: 'Allow' }).click()
    const link = page.locator('main a')
    await link.waitFor()
    holds((await link.getAttribute('href')).startsWith('com.example.notebook:/callback?code='), 'no code')
    equal(complaints, [], 'complaints of the browser')
    await page.reload()
    holds(!(await page.content()).includes('code='), 'the code can be sent a second time')
  })
}

export async function backDoesNothing(browser) {
  return asStranger(browser, async (context) => {
    const request = await notebookRequest()
    const page = await context.newPage()
    const returns = []
    page.on('request', (one) => one.url().startsWith(state.loopback) && returns.push(one.url()))
    const back = page.waitForRequest((one) => one.url().startsWith(state.loopback))
    await page.goto(String(request.url))
    await typeIn(page, PERSON)
    await page.getByRole('button', { name: 'Allow' }).click()
    await back
    await page.waitForLoadState('load')
    await page.goBack().catch(() => {})
    await page.waitForLoadState('load')
    equal(returns.length, 1, 'how often the browser came back to the client')
  })
}

export async function denied(browser) {
  return asStranger(browser, async (context) => {
    const request = await notebookRequest()
    const deny = (page) => page.getByRole('button', { name: 'Deny' }).click()
    const back = await authorize(context, request.url, state.loopback, PERSON, { consent: deny })
    const error = await refusal(redeem(request, back), 'after Deny')
    equal(error.error, 'access_denied', 'error')
    equal(back.searchParams.get('state'), request.state, 'state')
    equal(back.searchParams.get('iss'), ISSUER, 'iss')
  })
}

export async function oncePerBrowser(browser) {
  return asStranger(browser, async (context) => {
    await notebookTokens(context)
    const never = () => Promise.reject(new Error('asked for the password again'))
    const request = await notebookRequest()
    const back = await authorize(context, request.url, state.loopback, PERSON, { login: never })
    await redeem(request, back)
  })
}

export async function silently(browser) {
  return asStranger(browser, async (context) => {
    const request = await notebookRequest({ prompt: 'none' })
    const back = await authorize(context, request.url, state.loopback, PERSON)
    equal(back.searchParams.get('error'), 'login_required', 'error')
    equal(back.searchParams.get('state'), request.state, 'state')
  })
}
