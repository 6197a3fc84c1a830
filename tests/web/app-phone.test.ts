// The page on a phone, and on the smallest one.

import { tour } from './accessible.ts';

await tour({ width: 390, height: 844 });
