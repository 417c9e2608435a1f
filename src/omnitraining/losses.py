"""The Omni-Loss as pure functions, each with its equation of the paper (section 4.2).

H o F(x) is the output of a head H on the features of a backbone F, B a mini-batch, (S, Q) the
support and the query set of an episode, l_pre and l_meta the losses of the two algorithms, and a
tilde marks the EMA teacher of eq. 9.

Equations, sections and tables are numbered as in Y. Shu et al., "Omni-Training for Data-Efficient
Deep Learning", the preprint of "Omni-Training: Bridging Pre-Training and Meta-Training for
Few-Shot Learning", TPAMI 2023, https://arxiv.org/abs/2110.07510
"""

from torch import Tensor
from torch.nn import functional as F

from omnitraining.precision import at_least_float32


def joint_loss(pre_loss: Tensor, meta_loss: Tensor) -> Tensor:
    """Loss of the joint-flow (eq. 7), a scalar.

    L_joint = E_B l_pre(H_joint o F_joint(x), y) + E_(S,Q) l_meta(H_joint o F_joint(x), y | S)

    Args:
        pre_loss: l_pre of the joint-flow, the mean over a mini-batch; a scalar.
        meta_loss: l_meta of the joint-flow, the mean over queries; a scalar.
    """
    return pre_loss + meta_loss


def distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Self-distillation of outputs (eq. 10 and 13), a scalar.

    R = E || H~ o F~(x) - H o F(x) ||^2 / O

    Outputs are logits, negative distances or predicted values. The paper does not state whether
    the squared norm is summed over the O outputs or averaged. It is averaged here: a sum over 64
    logits would, at lambda = 3, outweigh the cross-entropy. No gradient reaches the teacher.

    Args:
        student: outputs [..., O].
        teacher: outputs of the EMA teacher for the same inputs [..., O].
    """
    return F.mse_loss(at_least_float32(student), at_least_float32(teacher.detach()))


def probability_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Self-distillation of class probabilities, in place of eq. 10 and 13; a scalar.

    R = E sum_n (softmax(H~ o F~(x))_n - softmax(H o F(x))_n)^2

    It is not in the paper. Unlike `distillation` it is at most 2, at any scale of the logits.

    Args:
        student: logits [..., N].
        teacher: logits of the EMA teacher for the same inputs [..., N].
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
    difference = student.softmax(-1) - teacher.softmax(-1)
    return difference.square().sum(-1).mean()


def regularized_loss(loss: Tensor, regularizer: Tensor, weight: float) -> Tensor:
    """Loss of an outer flow with its self-distillation (eq. 11 and 14), a scalar.

    J = L + lambda R

    Args:
        loss: L of the pre-flow (eq. 8) or of the meta-flow (eq. 12); a scalar.
        regularizer: R of the same flow; a scalar.
        weight: lambda.
    """
    return loss + weight * regularizer


def omni_loss(pre: Tensor, meta: Tensor, joint: Tensor) -> Tensor:
    """The Omni-Loss (eq. 15), a scalar.

    O_Omni = J_pre + J_meta + L_joint

    Args:
        pre: J_pre (eq. 11).
        meta: J_meta (eq. 14).
        joint: L_joint (eq. 7).
    """
    return pre + meta + joint


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error over samples and outputs (eq. 17), a scalar.

    l_pre = (H o F(x) - y)^2

    Args:
        outputs: predicted values [..., D].
        targets: values [..., D].
    """
    return F.mse_loss(at_least_float32(outputs), targets)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over samples (eq. 16), a scalar.

    l_pre = -log softmax(H o F(x))_y, where H is a linear layer

    Args:
        logits: [..., N].
        labels: class indices [...].
    """
    return F.cross_entropy(at_least_float32(logits).flatten(0, -2), labels.flatten())
