"""Fundamental frequency and voicing of speech: tracked in recordings, predicted from mels, and spread over samples."""
