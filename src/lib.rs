//! Portcullis judges what the network policies and mesh settings of a Kubernetes cluster add up to,
//! before a change takes effect.

pub mod netset;

pub mod model;

pub mod prose;

pub mod yaml;

pub mod cluster;

pub mod reach;

pub mod mesh;

pub mod rules;

pub mod k8s;

pub mod source;

pub mod config;

pub mod report;

pub mod admission;

pub mod telemetry;

pub mod server;

pub mod cli;
