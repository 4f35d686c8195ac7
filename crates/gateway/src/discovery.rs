//! Servers that DNS names: looked up again when what was answered gets old. Requests never wait for it.
//!
//! A server of names that fails or does not answer changes nothing: the endpoints known stay. Only an answer that there
//! are none, or no such name, takes them away.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::Clock;
use auspex_kernel::clock::Steady;
use auspex_kernel::service::StopSignal;
use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, Record};
use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;

use crate::balance::{Service, Share};
use crate::live::Live;
use crate::source::Source;
use crate::upstream::Place;

const ROUND: Duration = Duration::from_millis(250);
/// Of one question to one server, of which two are asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Of a lookup with all its questions.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// What was answered counts for as long as the answer says, within these bounds.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(60);
/// Until a lookup that failed or found nothing is tried again.
const PAUSE: Duration = Duration::from_secs(2);
/// Of one service.
const PLACES_MAX: usize = 200;

/// What was looked up, and when it is again.
pub(crate) struct Discovery {
    live: Arc<Live>,
    clock: Clock,
    /// And which servers it asks; none: those of the system.
    resolver: Option<(Vec<SocketAddr>, TokioResolver)>,
    known: BTreeMap<String, Known>,
}

struct Known {
    source: Source,
    due: Steady,
    is_failing: bool,
}

/// Servers, and how long that is so.
type Answer = Result<(Vec<(Place, Share)>, Duration), NetError>;

impl Discovery {
    pub(crate) fn new(live: Arc<Live>, clock: Clock) -> Self {
        Self {
            live,
            clock,
            resolver: None,
            known: BTreeMap::new(),
        }
    }

    /// Looks up what is due, until a stop is requested.
    pub(crate) async fn watch(discovery: &Mutex<Self>, mut stop: StopSignal) {
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let round = async {
                rounds.tick().await;
                discovery.lock().await.round().await;
            };
            tokio::select! {
                biased;
                () = stop.stop_requested() => return,
                () = round => {}
            }
        }
    }

    /// Looks up what is due, all of it at once.
    pub(crate) async fn round(&mut self) {
        let gateway = self.live.now();
        self.known.retain(|name, known| {
            let service = gateway.services.get(name);
            service.is_some_and(|service| service.plan.source == known.source)
        });
        let now = self.clock.steady();
        let is_due = |name: &str| self.known.get(name).is_none_or(|known| known.due <= now);
        let due: Vec<_> = gateway
            .services
            .values()
            .filter(|service| matches!(service.plan.source, Source::Dns(_) | Source::Srv(_)))
            .filter(|service| is_due(&service.plan.name))
            .collect();
        if due.is_empty() {
            return;
        }
        let answers = match self.resolver(&gateway.dns_servers) {
            Ok(resolver) => {
                let lookups = due.iter().map(|one| look_up(&resolver, &one.plan.source));
                join_all(lookups).await
            }
            Err(error) => vec![Err(error); due.len()],
        };
        for (service, answer) in due.iter().zip(answers) {
            let name = service.plan.name.as_str();
            let was_failing = self.known.get(name).is_some_and(|known| known.is_failing);
            let (pause, is_failing) = match answer {
                Ok((places, ttl)) => {
                    if was_failing {
                        tracing::info!(service = name, "the name of a service is answered again");
                    }
                    // It may have been replaced meanwhile.
                    let current = self.live.now();
                    let same = |one: &&Arc<Service>| one.plan.source == service.plan.source;
                    if let Some(current) = current.services.get(name).filter(same) {
                        current.set(&places);
                    }
                    (ttl.clamp(TTL_MIN, TTL_MAX), false)
                }
                Err(error) => {
                    if !was_failing {
                        tracing::warn!(service = name, %error, "the name of a service is not answered; the servers known stay");
                    }
                    (PAUSE, true)
                }
            };
            let known = Known {
                source: service.plan.source.clone(),
                due: self.clock.steady() + pause,
                is_failing,
            };
            self.known.insert(name.to_owned(), known);
        }
    }

    fn resolver(&mut self, servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
        if let Some((known, resolver)) = &self.resolver
            && known == servers
        {
            return Ok(resolver.clone());
        }
        let mut builder = match servers.is_empty() {
            true => TokioResolver::builder_tokio()?,
            false => {
                let servers = servers.iter().map(|server| {
                    let mut ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                    ways.iter_mut().for_each(|way| way.port = server.port());
                    NameServerConfig::new(server.ip(), true, ways.to_vec())
                });
                let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.timeout = ANSWER_TIMEOUT;
        options.attempts = 2;
        // When to ask again is decided here.
        options.cache_size = 0;
        let resolver = builder.build()?;
        self.resolver = Some((servers.to_vec(), resolver.clone()));
        Ok(resolver)
    }
}

/// Servers in a certain order, so that the same answer is the same list.
async fn look_up(resolver: &TokioResolver, source: &Source) -> Answer {
    let looking = async {
        match source {
            Source::Dns(authority) => by_name(resolver, authority).await,
            Source::Srv(name) => by_service(resolver, name).await,
            Source::Fixed(_) | Source::Registry(..) => Ok((Vec::new(), TTL_MAX)),
        }
    };
    let answer = tokio::time::timeout(LOOKUP_TIMEOUT, looking).await;
    let (mut places, ttl) = answer.unwrap_or(Err(NetError::Timeout))?;
    places.sort_unstable();
    places.dedup_by(|next, first| next.0 == first.0);
    places.sort_by_key(|(_, share)| share.priority);
    places.truncate(PLACES_MAX);
    let is_empty = places.is_empty();
    Ok((places, if is_empty { PAUSE } else { ttl }))
}

/// The addresses of `host:port`.
async fn by_name(resolver: &TokioResolver, authority: &str) -> Answer {
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let port = port.parse().unwrap_or(80);
    let (v4, v6) = tokio::join!(resolver.ipv4_lookup(host), resolver.ipv6_lookup(host));
    let mut ttl = TTL_MAX;
    let mut addresses = Vec::new();
    let mut failed = None;
    for answer in [v4, v6] {
        match records(answer) {
            Ok(records) => {
                for record in records {
                    let address = match &record.data {
                        RData::A(v4) => IpAddr::V4(v4.0),
                        RData::AAAA(v6) => IpAddr::V6(v6.0),
                        _ => continue,
                    };
                    ttl = ttl.min(Duration::from_secs(record.ttl.into()));
                    addresses.push(SocketAddr::new(address, port));
                }
            }
            Err(error) => failed = Some(error),
        }
    }
    // Some servers fail for one family alone.
    if let Some(error) = failed.filter(|_| addresses.is_empty()) {
        return Err(error);
    }
    let places = addresses.into_iter().map(|address| {
        let place = Place {
            authority: authority.to_owned(),
            address: Some(address),
        };
        (place, Share::default())
    });
    Ok((places.collect(), ttl))
}

/// The servers that SRV records name (RFC 2782), with their weights and priorities.
async fn by_service(resolver: &TokioResolver, name: &str) -> Answer {
    let records = records(resolver.srv_lookup(name).await)?;
    let found = records.iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some((srv, Duration::from_secs(record.ttl.into()))),
        _ => None,
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(srv, _)| srv.priority);
    let lookups = found.iter().take(PLACES_MAX).map(async |(srv, ttl)| {
        let target = srv.target.to_utf8();
        let authority = format!("{}:{}", target.trim_end_matches('.'), srv.port);
        let (mut places, of_address) = by_name(resolver, &authority).await?;
        let share = Share {
            priority: srv.priority,
            weight: srv.weight,
        };
        places.iter_mut().for_each(|(_, own)| *own = share);
        Ok::<_, NetError>((places, of_address.min(*ttl)))
    });
    let (mut places, mut least) = (Vec::new(), TTL_MAX);
    for answer in join_all(lookups).await {
        let (some, ttl) = answer?;
        places.extend(some);
        least = least.min(ttl);
    }
    Ok((places, least))
}

/// What was answered; nothing where it was answered that there is nothing.
fn records(answer: Result<Lookup, NetError>) -> Result<Vec<Record>, NetError> {
    match answer {
        Ok(lookup) => Ok(lookup.answers().to_vec()),
        Err(error) if error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
