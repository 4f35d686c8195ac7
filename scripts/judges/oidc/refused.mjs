// Requests that must lead nowhere: codes used twice or by others, tricks with redirects, downgrades.

import * as oauth from 'oauth4webapi'
import { asStranger, authorize } from '../../lib/browser.mjs'
import { equal, holds } from '../../lib/checks.mjs'
import { dashboardTokens } from './tokens.mjs'
import { ELSEWHERE, ISSUER, PERSON, api, form, notebookRequest, redeem, state, statusOf } from './world.mjs'

export async function replayed(browser) {
  const { tokens, code, verifier } = await dashboardTokens(browser)
  const { client_id, client_secret } = state.dashboard
  const again = await form('/oauth2/token', {
    ...{
      grant_type: 'authorization_code',
      code,
      redirect_uri: ELSEWHERE,
      code_verifier: verifier,
      client_id,
      client_secret,
    },
  })
  equal([again.status, again.body?.error], [400, 'invalid_grant'], 'a code used twice')
  equal(await statusOf(tokens.access_token), 401, 'with what the code gave before')
}

export async function tenAtOnce(browser) {
  const request = await notebookRequest()
  return asStranger(browser, async (context) => {
    const back = await authorize(context, request.url, state.loopback, PERSON)
    const fields = {
      ...{ grant_type: 'authorization_code', code: back.searchParams.get('code'), redirect_uri: state.loopback },
      ...{ code_verifier: request.verifier, client_id: state.notebook.client_id },
    }
    const answers = await Promise.all(Array.from({ length: 10 }, () => form('/oauth2/token', fields)))
    equal(answers.filter((answer) => answer.status === 200).length, 1, 'how many got tokens')
    equal(answers.filter((answer) => answer.body?.error === 'invalid_grant').length, 9, 'how many were refused')
  })
}

export async function wrongRedemptions(browser) {
  return asStranger(browser, async (context) => {
    for (const [what, change] of [
      ['another verifier', { code_verifier: oauth.generateRandomCodeVerifier() }],
      ['no verifier', { code_verifier: null }],
      ['another redirect', { redirect_uri: 'http://127.0.0.1:1/callback' }],
      ['another client', { client_id: state.dashboard.client_id, client_secret: state.dashboard.client_secret }],
    ]) {
      const request = await notebookRequest()
      const back = await authorize(context, request.url, state.loopback, PERSON)
      const fields = {
        ...{ grant_type: 'authorization_code', code: back.searchParams.get('code'), redirect_uri: state.loopback },
        ...{ code_verifier: request.verifier, client_id: state.notebook.client_id, ...change },
      }
      for (const name of Object.keys(fields)) if (fields[name] === null) delete fields[name]
      const { status, body } = await form('/oauth2/token', fields)
      holds(
        status === 400 && /^invalid_(grant|request)$/.test(body?.error),
        `${what}: ${status} ${JSON.stringify(body)}`,
      )
    }
  })
}

// RFC 6749, section 3.3: what goes too far may be refused or left out, and must not be given.
export async function beyondTheClient(browser) {
  return asStranger(browser, async (context) => {
    const request = await notebookRequest({ scope: 'openid predict users:write' })
    const back = await authorize(context, request.url, state.loopback, PERSON)
    if (back.searchParams.get('error') === 'invalid_scope') return
    const tokens = await redeem(request, back)
    equal(tokens.scope?.split(' ').sort(), ['openid', 'predict'], 'scopes told, as they are not those asked for')
    equal(await statusOf(tokens.access_token, '/v1/users'), 403, '/v1/users')
  })
}

export async function redirectTricks() {
  for (const trick of [
    `${state.loopback}/..`,
    `${state.loopback}?next=x`,
    state.loopback.replace('/callback', '/other'),
    state.loopback.replace('127.0.0.1', 'localhost'),
    state.loopback.replace('127.0.0.1', '127.0.0.1@client.example.org'),
    state.loopback.replace('http:', 'https:'),
    'http://127.0.0.1.example.org/callback',
    ELSEWHERE,
    'javascript:alert(1)//127.0.0.1/callback',
    '',
  ]) {
    const { url } = await notebookRequest({ redirect_uri: trick })
    const { status, headers } = await api('GET', url.pathname + url.search)
    holds(
      status >= 400 && status < 500 && !headers.get('location'),
      `${trick || 'an empty one'}: ${status} ${headers.get('location')}`,
    )
  }
  const { url } = await notebookRequest()
  url.searchParams.set('client_id', 'nobody')
  const { status, headers } = await api('GET', url.pathname + url.search)
  holds(status >= 400 && status < 500 && !headers.get('location'), `an unknown client: ${status}`)
}

export async function badRequests() {
  for (const [what, more, error] of [
    ['without a challenge', { code_challenge: null, code_challenge_method: null }, /^invalid_request$/],
    ['a plain challenge', { code_challenge_method: 'plain' }, /^invalid_request$/],
    ['a challenge without its method', { code_challenge_method: null }, /^invalid_request$/],
    ['the implicit flow', { response_type: 'token' }, /^unsupported_response_type$/],
    ['the hybrid flow', { response_type: 'code id_token' }, /^unsupported_response_type$/],
    ['an unknown scope', { scope: 'openid everything' }, /^invalid_scope$/],
    ['only scopes of others', { scope: 'users:write' }, /^invalid_scope$/],
  ]) {
    const request = await notebookRequest(more)
    const { status, headers } = await api('GET', request.url.pathname + request.url.search)
    holds(status === 303 || status === 302, `${what}: status ${status}`)
    const to = new URL(headers.get('location'), ISSUER)
    holds(to.href.startsWith(state.loopback), `${what}: sent to ${to.pathname}`)
    const query = to.searchParams
    holds(error.test(query.get('error')), `${what}: error ${query.get('error')}`)
    equal(
      [query.get('state'), query.get('iss'), query.get('code')],
      [request.state, ISSUER, null],
      `${what}: state, iss, code`,
    )
  }
}
