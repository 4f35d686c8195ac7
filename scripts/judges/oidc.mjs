// Judge: OAuth 2.0 and OpenID Connect as openid-client, oauth4webapi and jose understand them, with a
// person at a browser. Started by oidc.py, which has started the server.

import { mkdirSync } from 'node:fs'
import * as openid from 'openid-client'
import { launch, returnAddress } from '../lib/browser.mjs'
import { Checks, equal, from, holds } from '../lib/checks.mjs'
import * as login from './oidc/login.mjs'
import * as refused from './oidc/refused.mjs'
import * as tokens from './oidc/tokens.mjs'
import { ISSUER, api, prepare, state } from './oidc/world.mjs'

async function discovery() {
  const found = {}
  for (const algorithm of ['oidc', 'oauth2']) {
    const config = await openid.discovery(
      new URL(ISSUER),
      from(state.notebook, 'the client').client_id,
      undefined,
      openid.None(),
      {
        algorithm,
        execute: [openid.allowInsecureRequests, openid.enableNonRepudiationChecks],
      },
    )
    found[algorithm] = config
  }
  const [oidc, oauth2] = [found.oidc.serverMetadata(), found.oauth2.serverMetadata()]
  for (const name of [
    'issuer',
    'authorization_endpoint',
    'token_endpoint',
    'jwks_uri',
    'revocation_endpoint',
    'introspection_endpoint',
  ]) {
    holds(oidc[name], `${name} is missing`)
    equal(oauth2[name], oidc[name], `${name} in the other document`)
  }
  state.publicConfig = found.oidc
  state.as = oidc
}

function metadata() {
  const as = from(state.as, 'the metadata')
  equal(as.issuer, ISSUER, 'issuer')
  equal(as.response_types_supported, ['code'], 'response types')
  equal(as.code_challenge_methods_supported, ['S256'], 'challenge methods')
  equal(as.authorization_response_iss_parameter_supported, true, 'iss in the response')
  for (const [name, wanted] of [
    ['grant_types_supported', ['authorization_code', 'client_credentials', 'refresh_token']],
    ['token_endpoint_auth_methods_supported', ['client_secret_basic', 'client_secret_post', 'none']],
    ['scopes_supported', ['openid', 'profile', 'email', 'offline_access', 'predict', 'models:read']],
  ]) {
    const lacking = wanted.filter((one) => !as[name]?.includes(one))
    equal(lacking, [], `what ${name} lacks`)
  }
  equal(
    as.grant_types_supported.filter((one) => /implicit|password/.test(one)),
    [],
    'grants of old',
  )
  equal(
    as.id_token_signing_alg_values_supported.filter((one) => /none|HS/i.test(one)),
    [],
    'weak algorithms',
  )
  holds(as.subject_types_supported?.length && as.userinfo_endpoint, 'subject types or userinfo are missing')
}

async function keySet() {
  const { status, body } = await api('GET', '/.well-known/jwks.json')
  equal(status, 200, 'status')
  holds(body.keys.length > 0, 'no key')
  for (const key of body.keys) {
    const secret = ['d', 'p', 'q', 'k'].filter((name) => name in key)
    equal(secret, [], 'secret parts of a key')
    holds(key.kid && key.alg && key.use === 'sig', `a key without kid, alg or use: ${JSON.stringify(key)}`)
  }
  equal(new Set(body.keys.map((key) => key.kid)).size, body.keys.length, 'different kids')
}

async function main() {
  const checks = new Checks()
  mkdirSync(process.env.PAGES, { recursive: true })
  const browser = await launch()
  const home = await returnAddress()
  const beyond = await returnAddress()
  try {
    await checks.run('a user and three clients are made', () => prepare(home, beyond))
    await checks.run('openid-client finds both documents, and they agree', discovery)
    await checks.run('the documents say what there is', async () => metadata())
    await checks.run('the key set is public and complete', keySet)
    for (const page of [login.loginPage, login.consentPage, login.ownPages]) {
      await page(checks, browser).catch((error) =>
        checks.run(`${page.name} can be judged`, () => Promise.reject(error)),
      )
    }
    for (const [name, body] of [
      ['a person logs in and consents by the keyboard alone (openid-client)', login.byKeyboard],
      ['jose and oauth4webapi verify the access token', tokens.accessToken],
      ['jose verifies the ID token, which is no key to the API', tokens.idToken],
      ['userinfo says who it is', tokens.userinfo],
      ['the token opens what was consented to and no more', tokens.scopesHold],
      ['refresh tokens rotate, and an old one ends the family', tokens.refresh],
      ['a reply that was lost can be asked for again', tokens.lostReply],
      ['revoked tokens stop at once', tokens.revoked],
      ['a browser without scripts will do', login.withoutScripts],
      ['what the client redirects on to is reached (Chromium)', login.redirectedOn],
      ['an app by its own scheme is reached, once', login.toAnApp],
      ['going back in the browser sends no code again', login.backDoesNothing],
      ['Deny is told to the client', login.denied],
      ['the password is asked for once in a browser', login.oncePerBrowser],
      ['prompt=none asks nobody', login.silently],
      ['a client logs its user out (openid-client)', login.loggedOut],
      ['a page of another origin logs in by itself, as docs/OAUTH.md shows (Chromium)', login.inThePage],
      ['a confidential client gets its tokens (oauth4webapi)', tokens.confidential],
      ['a confidential client introspects and revokes its own tokens', tokens.introspection],
      ['a code used twice ends what it gave', refused.replayed],
      ['of ten redemptions at once one wins', refused.tenAtOnce],
      ['a code is worth nothing to others', refused.wrongRedemptions],
      ['client credentials, by both ways of authentication', tokens.clientCredentials],
      ['a scope that the client does not have is not given', refused.beyondTheClient],
      ['no trick leads to another address', refused.redirectTricks],
      ['what may not be asked for is refused to the client', refused.badRequests],
    ]) {
      await checks.run(name, () => body(browser))
    }
  } finally {
    await browser.close()
    home.close()
    beyond.close()
  }
  checks.finish()
}

await main()
