"""For people who know SDV: synthesizers that take its Metadata and are differentially private."""

from synthehr.sdv.synthesizers import DPCTGANSynthesizer, DPMarginalSynthesizer, DPSynthesizer, DPTVAESynthesizer

__all__ = ["DPCTGANSynthesizer", "DPMarginalSynthesizer", "DPSynthesizer", "DPTVAESynthesizer"]
