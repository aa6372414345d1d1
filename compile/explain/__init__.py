"""Why a compilation came out as it did: as a page for people, and the same in the terminal."""
