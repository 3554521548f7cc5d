#pragma once

/*
 * `penstock demo`: a whole cluster on the bundled model, one question, then everything ends.
 */

int cli_demo(void); /* exit status */
