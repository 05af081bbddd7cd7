"""What comes from disk, checked: tables of patients, X-rays, ECGs, splits, augmentation."""
