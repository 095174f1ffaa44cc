from setuptools import setup
setup(name='kdplugin', version='0.1.0', packages=['kdplugin'])
