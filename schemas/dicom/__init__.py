"""DICOM files: data elements, the header that this service reads, and stored pixel values."""
