from engine_fixtures import shared

__all__ = ['shared']
