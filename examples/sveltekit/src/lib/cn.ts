import { clsx, type ClassValue } from 'clsx';
import { twMerge } from 'tailwind-merge';

/** Joins classes; later ones win over earlier ones of their kind. */
export const cn = (...classes: ClassValue[]) => twMerge(clsx(classes));
