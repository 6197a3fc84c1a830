// The page in a large window.

import { tour } from './accessible.ts';

await tour({ width: 1280, height: 800 });
