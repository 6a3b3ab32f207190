"""Train: choose a recipe, start a run, watch it, stop it."""

import streamlit as st

import db
from allreview.training import jobs, runs
from allreview.ui import augmentation_view, context, frame, needs, recipe_form, run_view, starting

frame.inside_app()
dataset = needs.require_dataset()
jobs.resume_unfinished(context.engine(), context.settings())

st.title("Train")
starting.refusal()
choose, watch = st.columns([2, 3], gap="large")

with choose:
    st.subheader("New run", anchor=False)
    request = recipe_form.request_form()
    if request is not None:
        possible = starting.what_it_uses(dataset.id, request)
        if st.button(
            "Start training", type="primary", key="start_training", width="stretch", disabled=not possible
        ):
            starting.start(dataset.id, request)
        if recipe_form.preview_wanted():
            augmentation_view.show(dataset.id, request.recipe)

with watch, db.reading(context.engine()) as session:
    found = runs.list_runs(session, dataset_id=dataset.id)
    if not found:
        st.subheader("Runs", anchor=False)
        st.info("No runs yet. Choose a backbone on the left and start training: the curves appear here.")
        st.stop()
    shown = run_view.choose_run(found, "Run")

with watch:
    run_view.live(shown)
