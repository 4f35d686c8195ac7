//! Where a request finds its route: by its path, and among the routes of one path by host, headers and
//! method. Those of any host and any headers cost a request nothing of that, and however many there are for
//! certain ones, it takes a look-up for each part of the host name and each set of headers that any names.

use std::collections::HashMap;
use std::sync::Arc;

use auspex_kernel::service::Conditions;
use http::{HeaderMap, HeaderName, Method};

use super::Route;
use crate::address::Host;
use crate::edge::host;

/// Longer ones are no names of hosts (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// What of a request decides which route it has.
#[derive(Clone, Copy)]
pub(crate) struct Target<'r> {
    pub(crate) method: &'r Method,
    pub(crate) path: &'r str,
    /// With its port.
    pub(crate) host: Option<&'r str>,
    pub(crate) headers: &'r HeaderMap,
}

/// Which hosts routes are for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ForHost {
    Any,
    One(String),
    /// Every name below this one.
    Below(String),
}

impl ForHost {
    /// All that a route is for.
    pub(super) fn of(conditions: &Conditions) -> Vec<Self> {
        let one = |name: &String| match name.strip_prefix("*.") {
            Some(name) => Self::Below(name.to_owned()),
            None => Self::One(name.clone()),
        };
        match conditions.hosts.is_empty() {
            true => vec![Self::Any],
            false => conditions.hosts.iter().map(one).collect(),
        }
    }
}

pub(super) type Paths = matchit::Router<Methods>;

/// The routes of all hosts.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    any: Paths,
    one: HashMap<String, Paths>,
    below: HashMap<String, Paths>,
}

impl Hosts {
    pub(super) fn paths(&mut self, host: ForHost) -> &mut Paths {
        match host {
            ForHost::Any => &mut self.any,
            ForHost::One(name) => self.one.entry(name).or_default(),
            ForHost::Below(name) => self.below.entry(name).or_default(),
        }
    }

    /// The routes of a path that hold for every host.
    pub(super) fn at(&self, path: &str) -> Option<&Methods> {
        self.any.at(path).ok().map(|found| found.value)
    }

    /// The routes of a path, those that name the host most exactly first. Paths of the server itself are the same
    /// under every host.
    pub(super) fn candidates(
        &self,
        path: &str,
        host: Option<&str>,
    ) -> impl Iterator<Item = &Methods> {
        let any = self.at(path);
        let has_hosts = !(self.one.is_empty() && self.below.is_empty());
        let special = match host {
            Some(host) if has_hosts && any.is_none_or(|methods| !methods.is_own) => {
                self.special(path, host)
            }
            _ => Vec::new(),
        };
        special.into_iter().chain(any)
    }

    fn special(&self, path: &str, host: &str) -> Vec<&Methods> {
        let name = Host::read(host).map(|host| host::plain(host.name));
        let Some(name) = name.filter(|name| name.len() <= HOST_BYTES_MAX) else {
            return Vec::new();
        };
        let dots = name.match_indices('.');
        let below = dots.filter_map(|(at, _)| self.below.get(&name[at + 1..]));
        let paths = self.one.get(&name).into_iter().chain(below);
        let found = paths.filter_map(|paths| paths.at(path).ok());
        found.map(|found| found.value).collect()
    }
}

/// The routes of a path.
#[derive(Debug)]
pub(super) struct Methods {
    /// It is a path of the server itself.
    pub(super) is_own: bool,
    plain: Vec<Arc<Route>>,
    /// Those that name most headers first.
    by_headers: Vec<Group>,
}

/// Routes that name the same headers, by the values that they want.
#[derive(Debug)]
struct Group {
    names: Vec<HeaderName>,
    /// With their order.
    routes: HashMap<Vec<u8>, Vec<(usize, Arc<Route>)>>,
}

impl Methods {
    pub(super) fn new(is_own: bool) -> Self {
        Self {
            is_own,
            plain: Vec::new(),
            by_headers: Vec::new(),
        }
    }

    /// Adds a route; `order` says which of two goes first that a request fits alike.
    ///
    /// # Errors
    /// The route that is the same to every request.
    pub(super) fn insert(
        &mut self,
        route: &Arc<Route>,
        conditions: &Conditions,
        order: usize,
    ) -> Result<(), Arc<Route>> {
        let is_same = |other: &&Arc<Route>| other.method == route.method;
        if conditions.headers.is_empty() {
            if let Some(same) = self.plain.iter().find(is_same) {
                return Err(same.clone());
            }
            self.plain.push(route.clone());
            return Ok(());
        }
        let mut headers: Vec<_> = conditions.headers.iter().collect();
        headers.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        let names: Vec<HeaderName> = headers.iter().map(|(name, _)| name.clone()).collect();
        let key = key(headers.iter().map(|(_, value)| value.as_bytes()));
        let place = self
            .by_headers
            .iter()
            .position(|group| group.names == names);
        let place = place.unwrap_or_else(|| {
            let fewer = |group: &Group| group.names.len() < names.len();
            let at = self.by_headers.iter().position(fewer);
            let at = at.unwrap_or(self.by_headers.len());
            let routes = HashMap::new();
            self.by_headers.insert(at, Group { names, routes });
            at
        });
        let routes = self.by_headers[place].routes.entry(key).or_default();
        if let Some((_, same)) = routes.iter().find(|(_, other)| is_same(&other)) {
            return Err(same.clone());
        }
        routes.push((order, route.clone()));
        Ok(())
    }

    /// The route that fits a request best. GET stands for HEAD.
    pub(super) fn find(&self, wanted: &Method, headers: &HeaderMap) -> Option<&Arc<Route>> {
        let mut best: Option<(usize, usize, &Arc<Route>)> = None;
        for group in &self.by_headers {
            let count = group.names.len();
            if best.is_some_and(|(most, ..)| most > count) {
                break;
            }
            let Some((order, route)) = group.find(wanted, headers) else {
                continue;
            };
            if best.is_none_or(|(_, first, _)| order < first) {
                best = Some((count, order, route));
            }
        }
        match best {
            Some((.., route)) => Some(route),
            None => for_method(wanted, self.plain.iter()),
        }
    }

    /// All routes, or those that a request with these headers fits but for its method.
    pub(super) fn routes(&self, headers: Option<&HeaderMap>) -> impl Iterator<Item = &Arc<Route>> {
        let special = self.by_headers.iter().flat_map(move |group| {
            let fitting = headers.map(|headers| group.fitting(headers));
            let all = fitting.is_none().then(|| group.routes.values().flatten());
            let fitting = fitting.flatten().into_iter().flatten();
            fitting.chain(all.into_iter().flatten())
        });
        self.plain.iter().chain(special.map(|(_, route)| route))
    }
}

impl Group {
    /// The routes that want what a request says. What it says twice says nothing: services differ in which they take.
    fn fitting(&self, headers: &HeaderMap) -> Option<&Vec<(usize, Arc<Route>)>> {
        let mut values = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let mut said = headers.get_all(name).iter();
            let value = said.next().filter(|_| said.next().is_none())?;
            values.push(value.as_bytes());
        }
        self.routes.get(&key(values.into_iter()))
    }

    fn find(&self, wanted: &Method, headers: &HeaderMap) -> Option<(usize, &Arc<Route>)> {
        let fitting = self.fitting(headers)?;
        let route = for_method(wanted, fitting.iter().map(|(_, route)| route))?;
        let order = fitting.iter().find(|(_, other)| Arc::ptr_eq(other, route));
        order.map(|(order, _)| (*order, route))
    }
}

/// Values, one after the other; none has a zero in it.
fn key<'v>(values: impl Iterator<Item = &'v [u8]>) -> Vec<u8> {
    let mut key = Vec::new();
    for value in values {
        key.extend_from_slice(value);
        key.push(0);
    }
    key
}

/// The route that takes a method, or else one that takes any.
fn for_method<'t>(
    wanted: &Method,
    routes: impl Iterator<Item = &'t Arc<Route>> + Clone,
) -> Option<&'t Arc<Route>> {
    let takes_it = |route: &&Arc<Route>| route.method.as_ref() == Some(wanted);
    let takes_any = |route: &&Arc<Route>| {
        route.method.is_none() && ![Method::CONNECT, Method::TRACE].contains(wanted)
    };
    let mut any = routes.clone();
    let mut routes = routes;
    routes.find(takes_it).or_else(|| any.find(takes_any))
}
