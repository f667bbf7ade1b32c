"""Counts that Dai et al. 2021 report of FE2E and MESM, and what can and cannot explain that they differ from ours."""

# Tables 3 and 4: FLOPs for one sample, of FE2E and of MESM by top_p.
FE2E = 8.65e9
MESM = {0.7: 5.18e9, 0.5: 4.34e9}
# Of FE2E, counted on the authors' released code from the sites that are really active there.
CODE_OF_FE2E = {0.7: 0.54, 0.5: 0.36}

# benchmarks/paper_counts.py searches for these figures; a test holds the sentences to what it finds.
EXPLANATION = (
    "The paper's figures do not agree with these counts, and it does not say of which sample they are.",
    "Ten faces and 12 chunks, an average utterance of IEMOCAP, are 14.83G by convolutions. "
    "No whole number of faces and chunks gives 8.65G, if this is counted: convolutions; "
    "convolutions and linear layers; convolutions with two operations a multiply-add; "
    "convolutions and linear layers with two operations a multiply-add; "
    "convolutions and linear layers with bias, batch norm and ReLU; "
    "convolutions with bias, batch norm and ReLU, and two operations a multiply-add.",
    "What gives it: convolutions with bias, batch norm and ReLU for every output, of so many faces and chunks: "
    "4 and 8 (8.649G), 11 and 4 (8.648G), 18 and 0 (8.647G).",
    "Nor is its saving that of the sites really active: counted from them on the authors' released code, the share "
    "of FE2E is lower than the paper's (top_p 0.7: 0.60 in the paper, 0.54 in the code; "
    "top_p 0.5: 0.50 in the paper, 0.36 in the code). Counting bias, batch norm and ReLU too does not explain that: "
    "for a face they are 0.5% of the multiply-adds.",
)


def of_fe2e(top_p: float) -> float:
    """The paper's count of MESM as a share of its count of FE2E. top_p: one that the tables have."""
    return MESM[top_p] / FE2E
