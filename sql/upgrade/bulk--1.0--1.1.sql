-- What sql/install/ makes otherwise than in version 1.0. Tables that pg_dump dumps only grow.
set local search_path = pg_catalog, pg_temp;
