//! The solvers by name.

use std::fmt;
use std::str::FromStr;

use super::error::Error;
use super::tableau::Tableau;
use super::{bosh3, dopri5, euler, heun, midpoint, ralston, rk4, tsit5};
use crate::nearest::nearest;

/// A built-in solver. The last three estimate their error and choose their own steps, unless a number of
/// steps is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    Euler,
    Midpoint,
    Heun,
    Ralston,
    Rk4,
    Bosh3,
    Tsit5,
    Dopri5,
}

impl Method {
    pub const ALL: [Method; 8] = [
        Method::Euler,
        Method::Midpoint,
        Method::Heun,
        Method::Ralston,
        Method::Rk4,
        Method::Bosh3,
        Method::Tsit5,
        Method::Dopri5,
    ];

    pub fn tableau(self) -> &'static Tableau {
        match self {
            Method::Euler => &euler::TABLEAU,
            Method::Midpoint => &midpoint::TABLEAU,
            Method::Heun => &heun::TABLEAU,
            Method::Ralston => &ralston::TABLEAU,
            Method::Rk4 => &rk4::TABLEAU,
            Method::Bosh3 => &bosh3::TABLEAU,
            Method::Tsit5 => &tsit5::TABLEAU,
            Method::Dopri5 => &dopri5::TABLEAU,
        }
    }

    /// The name as scripts write it: `euler`, `midpoint`, …
    pub fn name(self) -> &'static str {
        match self {
            Method::Euler => "euler",
            Method::Midpoint => "midpoint",
            Method::Heun => "heun",
            Method::Ralston => "ralston",
            Method::Rk4 => "rk4",
            Method::Bosh3 => "bosh3",
            Method::Tsit5 => "tsit5",
            Method::Dopri5 => "dopri5",
        }
    }

    pub fn is_adaptive(self) -> bool {
        self.tableau().is_adaptive()
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = Error;

    /// # Errors
    /// An unknown name; the message suggests the nearest and lists all.
    fn from_str(name: &str) -> Result<Self, Error> {
        if let Some(method) = Method::ALL.into_iter().find(|m| m.name() == name) {
            return Ok(method);
        }
        let all = Method::ALL.map(Method::name);
        let hint = nearest(name, all).map_or(String::new(), |near| format!(" (did you mean {near:?}?)"));
        Err(Error::UnknownMethod(format!("unknown solver {name:?}{hint}; known are {}", all.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for method in Method::ALL {
            assert_eq!(method.to_string().parse::<Method>().unwrap(), method);
        }
        let adaptive: Vec<_> =
            Method::ALL.into_iter().filter(|m| m.is_adaptive()).map(Method::name).collect();
        assert_eq!(adaptive, ["bosh3", "tsit5", "dopri5"]);
    }

    #[test]
    fn unknown_names_suggest_the_nearest_and_list_all() {
        for (name, nearest) in
            [("rk5", "rk4"), ("mid-point", "midpoint"), ("Dopri", "dopri5"), ("eulr", "euler")]
        {
            let message = name.parse::<Method>().unwrap_err().to_string();
            assert!(message.contains(&format!("did you mean {nearest:?}")), "{message}");
            assert!(message.contains("heun, ralston"), "{message}");
        }
    }
}
