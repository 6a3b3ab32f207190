"""Data: what is in the store, and getting more into it."""

import streamlit as st

import db
from allreview.cells.naming import class_title
from allreview.cells.summaries import DatasetSummary, dataset_summaries, tied_subjects
from allreview.ui import context, frame, importer
from allreview.ui.errors import guarded

IMAGES = "BMP, PNG, JPEG, TIFF or WebP"


def main() -> None:
    """The list of datasets, the report of the last import, and the ways to import."""
    frame.inside_app()
    st.title("Data", anchor=False)
    importer.show_report()
    with db.reading(context.engine()) as session:
        summaries = dataset_summaries(session)
        tied = {summary.name: tied_subjects(session, summary.dataset_id) for summary in summaries}
    if summaries:
        _show_datasets(summaries)
        _show_tied(tied)
        st.subheader("Add cells", anchor=False)
    else:
        st.write("No cells yet. Import your own, or look around with synthetic ones.")
        _demo_offer(primary=True)
    _import_forms(with_demo=bool(summaries))


def _show_datasets(summaries: list[DatasetSummary]) -> None:
    st.dataframe(
        {
            "Dataset": [summary.name for summary in summaries],
            "Kind": ["Synthetic" if summary.synthetic else "Real cells" for summary in summaries],
            "Cells": [summary.cells for summary in summaries],
            "Subjects": [summary.subjects for summary in summaries],
            "Classes": [", ".join(map(class_title, summary.classes)) for summary in summaries],
            "Kept together": [summary.leak_groups for summary in summaries],
        },
        hide_index=True,
        column_config={
            "Cells": st.column_config.NumberColumn(format="localized"),
            "Kept together": st.column_config.NumberColumn(
                help="Leak groups: subjects that share identical cells. A split never cuts one."
            ),
        },
    )


def _show_tied(tied: dict[str, list[list[str]]]) -> None:
    if not any(tied.values()):
        return
    with st.expander("Subjects kept together"):
        for name, groups in tied.items():
            if groups:
                st.text(name)
                importer.show_tied_subjects(groups)


def _demo_offer(*, primary: bool) -> None:
    if importer.demo_button(primary=primary):
        with guarded():
            importer.load_demo()


def _import_forms(*, with_demo: bool) -> None:
    titles = ["From the server", "From your computer", *(["Demo set"] if with_demo else [])]
    on_server, from_computer, *demo = st.tabs(titles)
    with on_server:
        _server_form()
    with from_computer:
        _upload_form()
    for tab in demo:
        with tab:
            st.write("A few hundred drawn cells, to try everything without patient data.")
            _demo_offer(primary=False)


def _server_form() -> None:
    with st.form("import-path", border=False):
        source = st.text_input(
            "Folder or zip",
            placeholder="/data/C-NMC or s3://bucket/C-NMC",
            help=f"Folders of {IMAGES} images, on the server or in object storage.",
        )
        left, right = st.columns(2)
        dataset = left.text_input("Name of the dataset", placeholder="as the folder", max_chars=200)
        labels = right.text_input(
            "List of labels (CSV)",
            placeholder="optional",
            help="Columns: path, label, subject. It goes before names and folders.",
        )
        clicked = st.form_submit_button("Import", type="primary")
    if clicked:
        with guarded():
            importer.import_path(source, dataset, labels, None)


def _upload_form() -> None:
    with st.form("import-upload", border=False):
        left, right = st.columns(2)
        archive = left.file_uploader("Zip of cells", type="zip", help=f"Folders of {IMAGES} images.")
        labels = right.file_uploader(
            "List of labels (CSV), optional",
            type="csv",
            help="Columns: path, label, subject. It goes before names and folders.",
        )
        dataset = st.text_input("Name of the dataset", placeholder="as the zip", max_chars=200)
        clicked = st.form_submit_button("Import", type="primary")
    if clicked and archive is None:
        st.error("Choose a zip file first.", icon=":material/error:")
    elif clicked and archive is not None:
        with guarded():
            importer.import_upload(archive, archive.name, dataset, labels)


if __name__ == "__main__":
    main()
