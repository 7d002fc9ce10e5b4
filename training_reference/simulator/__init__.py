"""A simulator of triplets for any telescope, which knows its truth.

One call draws one telescope and many candidates. A sky of stars and galaxies is imaged through the
point-spread functions of a science and of a reference exposure, with the noise and the faults of
detectors; the difference is then computed from the two images by a real subtraction with an
imperfect kernel, registration and flux scale, so that residuals look as they do in surveys. A bogus
candidate is cut out where a detection algorithm would have triggered on its cause.
"""

from training_reference.simulator.candidates import BOGUS, CAUSES, REAL
from training_reference.simulator.draw import Simulated, simulate
from training_reference.simulator.telescope import DECAM_LIKE, ZTF_LIKE, Telescope

__all__ = ["BOGUS", "CAUSES", "DECAM_LIKE", "REAL", "ZTF_LIKE", "Simulated", "Telescope", "simulate"]
