// A person at a browser: the login and the consent page, and the ways through them.

import { asStranger, authorize, typeIn } from '../../lib/browser.mjs'
import { equal, from, holds, refusal } from '../../lib/checks.mjs'
import { judgeHeaders, judgePage } from './pages.mjs'
import { ISSUER, PERSON, notebookRequest, notebookTokens, redeem, state, statusOf } from './world.mjs'

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
