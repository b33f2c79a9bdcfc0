"""The options that every command on a trained network takes."""

from pathlib import Path
from typing import Annotated

import typer

Subject = Annotated[Path, typer.Argument(help="The folder of a run, or a file of weights.", metavar="RUN|WEIGHTS")]
Subjects = Annotated[list[Path], typer.Argument(help="Folders of runs, or files of weights.", metavar="RUN|WEIGHTS...")]
Model = Annotated[
    str | None, typer.Option("--model", help="An option of model that the weights have to be of, else refused.")
]
BatchNorm = Annotated[
    bool | None, typer.Option("--bn/--no-bn", help="Whether the weights have to be with BatchNorm, else refused.")
]
Activation = Annotated[
    str | None, typer.Option(help="Of a file alone: an option of activation, where its name says none or another.")
]
NegativeSlope = Annotated[float | None, typer.Option(help="Of a file alone: of its LeakyReLU.")]
Mean = Annotated[str | None, typer.Option(help="Of a file alone: subtracted from images from 0 to 1, as 0.5,0.5,0.5.")]
Std = Annotated[str | None, typer.Option(help="Of a file alone: divided by, as 0.5,0.5,0.5.")]
Precision = Annotated[
    str | None, typer.Option(help="Lightning's name, such as 32-true; default: the run's, 32-true of a file alone.")
]
DataRoot = Annotated[
    Path | None, typer.Option(help="The folder of CIFAR-10; default: the run's, else what CIFAR_LAB_DATA names.")
]
Allow = Annotated[list[str] | None, typer.Option(help="A package whose components may run; may be repeated.")]
