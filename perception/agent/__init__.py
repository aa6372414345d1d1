"""The vehicle's agent: what the fleet's owner signed becomes what this vehicle runs, or nothing changes.

A vehicle has two slots. One is in use; the agent fills the other, tries it, points to it, watches it, and keeps it or
points back. Everything it knows stands in one file, `journal.json`, which is only ever replaced whole: wherever a
process dies, the next one reads how far it came and goes on. The folder::

    journal.json     which slot is in use, what both hold, what is on trial
    active, shadow   links to the packages that run, for whoever starts them; they follow the journal
    slots/a, b       a release each, verified, measured on this machine
    trust/           the newest metadata this vehicle has seen; only ever moves forward
    downloads/       files under their sha256, and parts of files
    health/          what the processes that run the model report
    spool/           signed drive records that wait for a network
    vehicle.pem      the key that signs them
    metrics.prom     for Prometheus' text file collector

Source: The Update Framework 1.0 (what to believe); RAUC and Mender (two slots, commit or fall back).
"""
