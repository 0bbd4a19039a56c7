//! What the sets, selectors, the cluster and reachability mean, held against sources that share no
//! code with them: published truth tables, closed forms, algebraic laws and a brute-force evaluator.

mod api;
mod cluster_laws;
mod conformance;
mod edges;
mod grids;
mod oracle;
mod policy_laws;
mod selectors;
mod sets;
mod world;
