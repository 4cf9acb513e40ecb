//! The command webservice.
